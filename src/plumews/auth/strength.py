"""What is hard to guess: rules for passwords that people choose, and secrets that nobody chose (layer 2).

Invariant: an error says which rule is broken, and nothing of what broke it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from .. import limits
from ..errors import WeakRoomPassword

__all__ = ["PasswordStrength", "generate_secure_secret", "validate_room_password"]


@dataclass(frozen=True, slots=True)
class PasswordStrength:
    """The rules for room passwords (the seed's PasswordStrengthConfig).

    Args:
        min_length, max_length: in code points (default 8 and 1024).
        require_upper, require_lower, require_digit: whether there has to be one of these, in any script (default
            True).
        require_special: whether there has to be something that is neither letter, digit nor space (default False).

    Raises:
        ValueError: the lengths leave no password.
    """

    min_length: int = limits.PASSWORD_MIN_LENGTH
    max_length: int = limits.PASSWORD_MAX_LENGTH
    require_upper: bool = True
    require_lower: bool = True
    require_digit: bool = True
    require_special: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.min_length <= self.max_length:
            raise ValueError(
                "min_length must be 1 or more and max_length no less than that, "
                f"not {self.min_length} and {self.max_length}"
            )


_DEFAULT = PasswordStrength()


def validate_room_password(password: str, strength: PasswordStrength = _DEFAULT) -> None:
    """Raise ``WeakRoomPassword``, with the rules that are broken, unless ``password`` keeps those of ``strength``."""
    if not isinstance(password, str):
        raise WeakRoomPassword(f"it must be a str, not {type(password).__name__}")
    if not strength.min_length <= len(password) <= strength.max_length:
        raise WeakRoomPassword(f"it must have {strength.min_length} to {strength.max_length} characters")
    rules = (
        (strength.require_upper, str.isupper, "an upper-case letter"),
        (strength.require_lower, str.islower, "a lower-case letter"),
        (strength.require_digit, str.isdecimal, "a digit"),
        (strength.require_special, _is_special, "a special character"),
    )
    missing = [name for required, kind, name in rules if required and not any(map(kind, password))]
    if missing:
        raise WeakRoomPassword(f"it must have {', '.join(missing)}")


def generate_secure_secret(n: int = limits.SECRET_SIZE) -> bytes:
    """``n`` random bytes (default 32), to sign tokens with. Raises ``ValueError`` for fewer than 32."""
    if n < limits.SECRET_SIZE:
        raise ValueError(
            f"validation error on secret: length should be at least {limits.SECRET_SIZE} bytes, and is to be {n}"
        )
    return secrets.token_bytes(n)


def _is_special(char: str) -> bool:
    return char.isprintable() and not char.isalnum() and not char.isspace()
