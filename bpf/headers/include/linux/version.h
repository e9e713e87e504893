/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Only kprobes ever had to name the kernel's own version; tc programs load with any. */
#ifndef FLOWTOP_VERSION_H
#define FLOWTOP_VERSION_H
#define KERNEL_VERSION(major, minor, patch) (((major) << 16) + ((minor) << 8) + (patch))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
#endif
