/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Classic BPF's opcodes stand here in the kernel; bcc's bpf.h includes this file but needs none of them. */
