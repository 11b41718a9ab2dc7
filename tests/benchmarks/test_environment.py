"""Reports of benchmarks name the CPU, its caches and its vector extensions."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.codec import environment

CPU = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Some CPU
stepping\t: 8
flags\t\t: fpu sse4_2 avx avx2 avx512f avx512bw amx_tile xsave

processor\t: 1
model name\t: Another CPU
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CPU with three caches, and its /proc/cpuinfo."""
    (tmp_path / "cpuinfo").write_text(CPU)
    for number, (level, kind, size, shared) in enumerate(
        [("1", "Data", "48K", "0"), ("2", "Unified", "2048K", "0"), ("3", "Unified", "30720K", "0-1,4")]
    ):
        index = tmp_path / f"index{number}"
        index.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
            (index / name).write_text(f"{text}\n")
    monkeypatch.setattr(environment, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(environment, "CACHES", tmp_path)
    monkeypatch.setattr(environment, "sysctl", lambda name: "")
    return tmp_path


def test_report_names_cpu_caches_and_vector_extensions(machine: Path) -> None:
    lines = environment.lines()
    assert lines[0].startswith("Processor: Some CPU, family 6, model 143, stepping 8 (")
    assert lines[1] == "Caches of a core: L1d 48 KiB, L2 2 MiB, L3 30 MiB for 3 CPUs"
    assert lines[2] == "Vector extensions: sse4_2 avx avx2 avx512f avx512bw amx_tile"


def test_report_of_an_unreadable_cache_leaves_it_out(machine: Path) -> None:
    (machine / "index1" / "size").write_text("unknown\n")
    (machine / "index2" / "shared_cpu_list").unlink()
    assert environment.caches() == "L1d 48 KiB"


def test_report_without_kernel_files_says_unknown(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "CPU_INFO", machine / "absent")
    monkeypatch.setattr(environment, "CACHES", machine / "absent")
    assert environment.processor()
    assert (environment.caches(), environment.vector_extensions()) == ("unknown", "unknown")


def test_report_of_macos_asks_sysctl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = {"machdep.cpu.brand_string": "Apple M9", "hw.l1dcachesize": "65536", "hw.l2cachesize": "4194304"}
    monkeypatch.setattr(environment, "CPU_INFO", tmp_path / "absent")
    monkeypatch.setattr(environment, "CACHES", tmp_path / "absent")
    monkeypatch.setattr(environment, "sysctl", lambda name: told.get(name, ""))
    assert environment.processor() == "Apple M9"
    assert environment.caches() == "L1d 64 KiB, L2 4 MiB"
