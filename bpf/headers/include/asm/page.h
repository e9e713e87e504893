/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* bcc's ring buffer macro sizes buffers in pages. */
#ifndef FLOWTOP_PAGE_H
#define FLOWTOP_PAGE_H
#define PAGE_SIZE 4096
#endif
