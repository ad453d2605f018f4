"""The first process of every container: a program that is made here, byte by byte.

Owns: its code, and the ELF file around it. Must never: need anything of the image it runs in.

An image may have neither a shell nor ``sleep``, and a container ends with its first process. So an
image is loaded with one more layer, which has this file. It is used in three ways:

* without arguments it is process 1: it ignores SIGCHLD, so that the kernel reaps every process that
  is left to it, and waits for ever;
* ``SIGNAL PID...`` sends a signal, where this process may not (the user is another one);
* ``t PROGRAM ARGV...`` waits until its terminal has a size, for the daemon can set that only once a
  program runs, and becomes the program. Where it cannot, it says :data:`MARK` and exits with errno.

The code is what GNU as makes of the text beside it (``tests/unit/runtimes/test_docker_init.py``).
"""

from __future__ import annotations

import struct
from typing import Final

NAME: Final = "gu-init"
"""Of the file, in the root of the container."""
PATH: Final = f"/{NAME}"
MARK: Final = b"\0gu-exec"
_BASE: Final = 0x400000
_ALIGN: Final = 0x10000
_HEADERS: Final = 64 + 56
_MACHINES: Final = {"x86_64": 62, "aarch64": 183}

_X86_64: Final = r"""
# _start:
48 8b 1c 24                       # mov rbx, [rsp]
4c 8d 64 24 10                    # lea r12, [rsp+16]
83 fb 01                          # cmp ebx, 1
77 28                             # ja asked
6a 00                             # push 0
6a 00                             # push 0
6a 00                             # push 0
6a 01                             # push 1
b8 0d 00 00 00                    # mov eax, 13
bf 11 00 00 00                    # mov edi, 17
48 89 e6                          # mov rsi, rsp
31 d2                             # xor edx, edx
41 ba 08 00 00 00                 # mov r10d, 8
0f 05                             # syscall
# rest:
b8 22 00 00 00                    # mov eax, 34
0f 05                             # syscall
eb f7                             # jmp rest
# asked:
49 8b 04 24                       # mov rax, [r12]
80 38 74                          # cmp byte ptr [rax], 116
74 5d                             # je terminal
e8 26 00 00 00                    # call number
41 89 c5                          # mov r13d, eax
# each:
49 83 3c 24 00                    # cmp qword ptr [r12], 0
74 13                             # je done
e8 17 00 00 00                    # call number
89 c7                             # mov edi, eax
44 89 ee                          # mov esi, r13d
b8 3e 00 00 00                    # mov eax, 62
0f 05                             # syscall
eb e6                             # jmp each
# done:
31 ff                             # xor edi, edi
b8 3c 00 00 00                    # mov eax, 60
0f 05                             # syscall
# number:
49 8b 34 24                       # mov rsi, [r12]
49 83 c4 08                       # add r12, 8
31 c0                             # xor eax, eax
45 31 c0                          # xor r8d, r8d
80 3e 2d                          # cmp byte ptr [rsi], 45
75 06                             # jne digit
48 ff c6                          # inc rsi
41 ff c0                          # inc r8d
# digit:
0f b6 0e                          # movzx ecx, byte ptr [rsi]
83 e9 30                          # sub ecx, 48
72 0a                             # jb last
48 ff c6                          # inc rsi
6b c0 0a                          # imul eax, eax, 10
01 c8                             # add eax, ecx
eb ee                             # jmp digit
# last:
45 85 c0                          # test r8d, r8d
74 02                             # jz plain
f7 d8                             # neg eax
# plain:
c3                                # ret
# terminal:
68 40 42 0f 00                    # push 1000000
6a 00                             # push 0
48 89 e5                          # mov rbp, rsp
6a 00                             # push 0
41 be 20 4e 00 00                 # mov r14d, 20000
# look:
b8 10 00 00 00                    # mov eax, 16
31 ff                             # xor edi, edi
be 13 54 00 00                    # mov esi, 0x5413
48 89 e2                          # mov rdx, rsp
0f 05                             # syscall
66 83 3c 24 00                    # cmp word ptr [rsp], 0
75 11                             # jne go
b8 23 00 00 00                    # mov eax, 35
48 89 ef                          # mov rdi, rbp
31 f6                             # xor esi, esi
0f 05                             # syscall
41 ff ce                          # dec r14d
75 d7                             # jnz look
# go:
49 8b 7c 24 08                    # mov rdi, [r12+8]
49 8d 74 24 10                    # lea rsi, [r12+16]
49 8d 14 dc                       # lea rdx, [r12+rbx*8]
b8 3b 00 00 00                    # mov eax, 59
0f 05                             # syscall
f7 d8                             # neg eax
41 89 c5                          # mov r13d, eax
b8 01 00 00 00                    # mov eax, 1
bf 01 00 00 00                    # mov edi, 1
48 8d 35 11 00 00 00              # lea rsi, [rip+mark]
ba 08 00 00 00                    # mov edx, 8
0f 05                             # syscall
44 89 ef                          # mov edi, r13d
b8 3c 00 00 00                    # mov eax, 60
0f 05                             # syscall
# mark:
00 67 75 2d 65 78 65 63           # .ascii "\0gu-exec"
"""

_AARCH64: Final = r"""
# _start:
f3 03 40 f9                       # ldr x19, [sp]
f4 43 00 91                       # add x20, sp, #16
7f 06 00 f1                       # cmp x19, #1
48 02 00 54                       # b.hi asked
ff 83 00 d1                       # sub sp, sp, #32
20 00 80 d2                       # mov x0, #1
e0 7f 00 a9                       # stp x0, xzr, [sp]
ff 7f 01 a9                       # stp xzr, xzr, [sp, #16]
c8 10 80 d2                       # mov x8, #134
20 02 80 d2                       # mov x0, #17
e1 03 00 91                       # mov x1, sp
02 00 80 d2                       # mov x2, #0
03 01 80 d2                       # mov x3, #8
01 00 00 d4                       # svc #0
# rest:
28 09 80 d2                       # mov x8, #73
00 00 80 d2                       # mov x0, #0
01 00 80 d2                       # mov x1, #0
02 00 80 d2                       # mov x2, #0
03 00 80 d2                       # mov x3, #0
01 00 00 d4                       # svc #0
fa ff ff 17                       # b rest
# asked:
80 02 40 f9                       # ldr x0, [x20]
01 00 40 39                       # ldrb w1, [x0]
3f d0 01 71                       # cmp w1, #116
e0 03 00 54                       # b.eq terminal
0c 00 00 94                       # bl number
f5 03 00 2a                       # mov w21, w0
# each:
80 02 40 f9                       # ldr x0, [x20]
c0 00 00 b4                       # cbz x0, done
08 00 00 94                       # bl number
e1 03 15 2a                       # mov w1, w21
28 10 80 d2                       # mov x8, #129
01 00 00 d4                       # svc #0
fa ff ff 17                       # b each
# done:
00 00 80 d2                       # mov x0, #0
a8 0b 80 d2                       # mov x8, #93
01 00 00 d4                       # svc #0
# number:
81 86 40 f8                       # ldr x1, [x20], #8
00 00 80 52                       # mov w0, #0
04 00 80 52                       # mov w4, #0
43 01 80 52                       # mov w3, #10
22 00 40 39                       # ldrb w2, [x1]
5f b4 00 71                       # cmp w2, #45
61 00 00 54                       # b.ne digit
21 04 00 91                       # add x1, x1, #1
24 00 80 52                       # mov w4, #1
# digit:
22 14 40 38                       # ldrb w2, [x1], #1
42 c0 00 71                       # subs w2, w2, #48
63 00 00 54                       # b.lo last
00 08 03 1b                       # madd w0, w0, w3, w2
fc ff ff 17                       # b digit
# last:
44 00 00 34                       # cbz w4, plain
e0 03 00 4b                       # neg w0, w0
# plain:
00 7c 40 93                       # sxtw x0, w0
c0 03 5f d6                       # ret
# terminal:
ff 83 00 d1                       # sub sp, sp, #32
00 48 88 d2                       # movz x0, #0x4240
e0 01 a0 f2                       # movk x0, #0xf, lsl #16
ff 03 00 a9                       # stp xzr, x0, [sp]
15 c4 89 52                       # mov w21, #20000
# look:
a8 03 80 d2                       # mov x8, #29
00 00 80 d2                       # mov x0, #0
61 82 8a d2                       # mov x1, #0x5413
e2 43 00 91                       # add x2, sp, #16
01 00 00 d4                       # svc #0
e0 23 40 79                       # ldrh w0, [sp, #16]
e0 00 00 35                       # cbnz w0, go
a8 0c 80 d2                       # mov x8, #101
e0 03 00 91                       # mov x0, sp
01 00 80 d2                       # mov x1, #0
01 00 00 d4                       # svc #0
b5 06 00 71                       # subs w21, w21, #1
81 fe ff 54                       # b.ne look
# go:
80 06 40 f9                       # ldr x0, [x20, #8]
81 42 00 91                       # add x1, x20, #16
82 0e 13 8b                       # add x2, x20, x19, lsl #3
a8 1b 80 d2                       # mov x8, #221
01 00 00 d4                       # svc #0
f5 03 00 4b                       # neg w21, w0
20 00 80 d2                       # mov x0, #1
e1 00 00 10                       # adr x1, mark
02 01 80 d2                       # mov x2, #8
08 08 80 d2                       # mov x8, #64
01 00 00 d4                       # svc #0
e0 03 15 2a                       # mov w0, w21
a8 0b 80 d2                       # mov x8, #93
01 00 00 d4                       # svc #0
# mark:
00 67 75 2d 65 78 65 63           # .ascii "\0gu-exec"
"""
LISTINGS: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}


def program(arch: str) -> bytes | None:
    """The executable file for the processor ``arch``, None where there is none for it."""
    if arch not in LISTINGS:
        return None
    code = machine_code(LISTINGS[arch])
    size = _HEADERS + len(code)
    ident = b"\x7fELF\2\1\1" + bytes(9)
    elf = struct.pack(
        "<HHIQQQIHHHHHH", 2, _MACHINES[arch], 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, _ALIGN)
    return ident + elf + load + code


def machine_code(listing: str) -> bytes:
    """The bytes that stand left in a listing."""
    return b"".join(bytes.fromhex(line.partition("#")[0]) for line in listing.splitlines())
