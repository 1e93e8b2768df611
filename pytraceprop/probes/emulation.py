"""Which instructions the kernel emulates under a uprobe; all others it single-steps, at a much higher cost.

x86-64: arch/x86/kernel/uprobes.c, branch_setup_xol_ops and push_setup_xol_ops. Nops of more than one
byte are emulated by recent kernels only (2025), so they do not count here.
arm64: arch/arm64/kernel/probes/decode-insn.c. NOP is simulated by recent kernels only (commit
ac4ad5c09b34), so it does not count either.
"""

from __future__ import annotations

import struct

#: (mask, value) of the instruction words that arm64 simulates: B and BL, B.cond, CBZ and CBNZ, TBZ and
#: TBNZ, BR, BLR, RET, ADR and ADRP, LDR (literal), LDRSW (literal).
_ARM64 = (
    (0x7C000000, 0x14000000),
    (0xFF000010, 0x54000000),
    (0x7E000000, 0x34000000),
    (0x7E000000, 0x36000000),
    (0xFFFFFC1F, 0xD61F0000),
    (0xFFFFFC1F, 0xD63F0000),
    (0xFFFFFC1F, 0xD65F0000),
    (0x1F000000, 0x10000000),
    (0xBF000000, 0x18000000),
    (0xFF000000, 0x98000000),
)


def is_emulated(machine: str, code: bytes) -> bool:
    """Whether every kernel emulates the instruction that `code` begins with. `machine` as in Plan."""
    if machine == "arm64":
        (word,) = struct.unpack("<I", code[:4])
        return any(word & mask == value for mask, value in _ARM64)
    first, second = code[0], code[1]
    if first == 0x41:  # push r8 to r15
        return 0x50 <= second <= 0x57
    conditional = 0x70 <= first <= 0x7F or (first == 0x0F and 0x80 <= second <= 0x8F)
    return conditional or 0x50 <= first <= 0x57 or first in (0x90, 0xE8, 0xE9, 0xEB)
