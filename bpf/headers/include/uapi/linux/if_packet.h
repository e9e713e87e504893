/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Empty: bcc's helpers include this but use nothing of it. */
