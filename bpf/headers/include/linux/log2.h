/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* bcc's stack trace macros name roundup_pow_of_two(); flowtop uses none of them, so nothing is declared here. */
