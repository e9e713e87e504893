/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* bcc includes this before everything else. Its helpers refuse to compile without CONFIG_BPF_SYSCALL. */
#ifndef FLOWTOP_KCONFIG_H
#define FLOWTOP_KCONFIG_H
#define CONFIG_BPF_SYSCALL 1
#endif
