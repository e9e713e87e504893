"""Numbers of the system calls that a confined process may make, and of those that are looked at more closely.

From the kernel's arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

from collections.abc import Mapping

Numbers = Mapping[str, tuple[int | None, int | None]]
"""By name, the number on x86-64 and on arm64; None: it has no such call."""

FILES: Numbers = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70), "lseek": (8, 62), "close": (3, 57),
    "close_range": (436, 436), "fstat": (5, 80), "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getdents64": (217, 61),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46),
    "fallocate": (285, 47), "fadvise64": (221, 223), "readahead": (187, 213), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37), "unlink": (87, None),
    "unlinkat": (263, 35), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "fchown": (93, 55), "fchownat": (260, 54), "utimensat": (280, 88), "statfs": (137, 43), "fstatfs": (138, 44),
    "umask": (95, 166),
    "copy_file_range": (326, 285), "sendfile": (40, 71), "splice": (275, 76), "memfd_create": (319, 279),
    "pipe": (22, None), "pipe2": (293, 59), "eventfd2": (290, 19), "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "timerfd_create": (283, 85),
    "timerfd_settime": (286, 86), "timerfd_gettime": (287, 87), "signalfd4": (289, 74), "fcntl": (72, 25),
}
"""Files and descriptors. Which files is up to the user id and Landlock."""
PROCESS: Numbers = {
    "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233),
    "brk": (12, 214), "mincore": (27, 232), "msync": (26, 227), "membarrier": (324, 283), "futex": (202, 98),
    "futex_waitv": (449, 449), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293),
    "set_tid_address": (218, 96), "gettid": (186, 178), "getpid": (39, 172), "getppid": (110, 173),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158), "getpgrp": (111, None),
    "getpgid": (121, 155), "getsid": (124, 156), "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121), "sched_getscheduler": (145, 120), "getpriority": (140, 141),
    "setpriority": (141, 140), "getrlimit": (97, 163), "getrusage": (98, 165), "times": (100, 153),
    "sysinfo": (99, 179), "uname": (63, 160), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None),
    "getrandom": (318, 278), "getcpu": (309, 168), "get_mempolicy": (239, 236), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "pause": (34, None),
    "exit": (60, 93), "exit_group": (231, 94), "restart_syscall": (219, 128), "arch_prctl": (158, None),
    "setitimer": (38, 103), "getitimer": (36, 102), "alarm": (37, None), "wait4": (61, 260), "waitid": (247, 95),
    "capget": (125, 90),
}
"""Memory, threads, time, signals to this process, and questions about it."""
OF_SOCKETS: Numbers = {
    "getsockname": (51, 204), "getpeername": (52, 205), "recvfrom": (45, 207), "recvmsg": (47, 212),
    "recvmmsg": (299, 243),
    "shutdown": (48, 210), "setsockopt": (54, 208), "getsockopt": (55, 209), "accept": (43, 202),
    "accept4": (288, 242),
}
"""Of sockets that are there."""
NEW_SOCKETS: Numbers = {
    "socketpair": (53, 199), "bind": (49, 200), "listen": (50, 201), "connect": (42, 203),
}
PROGRAMS: Numbers = {
    "execve": (59, 221), "fork": (57, None), "vfork": (58, None), "setsid": (112, 157), "setpgid": (109, 154),
    "chmod": (90, None), "fchmodat": (268, 53), "truncate": (76, 45), "symlink": (88, None), "symlinkat": (266, 36),
    "setns": (308, 268), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "chown": (92, None), "getdents": (78, None),
    "dup2": (33, None), "ioprio_set": (251, 30), "sync_file_range": (277, 84), "mlock": (149, 228),
    "munlock": (150, 229), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "setrlimit": (160, 164), "capset": (126, 91), "getpgid": (121, 155), "openat2": (437, 437),
    "inotify_init1": (294, 26),
}
"""More, for what starts the compiler and enters network namespaces."""
EXAMINED: Numbers = {
    "bpf": (321, 280), "socket": (41, 198), "ioctl": (16, 29), "prctl": (157, 167), "prlimit64": (302, 261),
    "kill": (62, 129), "tgkill": (234, 131), "clone": (56, 220), "clone3": (435, 435), "fchmod": (91, 52),
    "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269), "openat": (257, 56), "open": (2, None),
}
"""Those that depend on their arguments."""
NEWEST = 449
"""Later ones than this are unknown here: libc is told that the kernel does not have them, and does without."""
