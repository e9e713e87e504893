/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which process a socket belongs to: the one that last created it, connected it, sent from it by address, or asked for
 * its peer, which accept(2) does for the caller. ABI with flowtop/capture/ebpf/owners.py: struct process.
 *
 * The identity of a process is read from its task_struct, at offsets that the compiling child takes from the kernel's
 * BTF (flowtop/capture/ebpf/btf.py): -DTASK_TGID=N and so on, with -DFLOW_OWNERS.
 * No maps here: bcc rewrites map accesses in the main file only.
 */
#ifndef FLOWTOP_OWNER_H
#define FLOWTOP_OWNER_H

#include "flow.h"

#define OWNER_COMM 16                 /* TASK_COMM_LEN */

/* A process that has used a socket since the last drain; by its owner id (flow.h). */
struct process {
	flow_u64 start_ns;                /* CLOCK_BOOTTIME, outside of time namespaces */
	flow_u64 cgroup_id;               /* in the hierarchy of cgroup v2 */
	flow_u32 pid;                     /* of the whole process (tgid), in the initial PID namespace */
	flow_u32 parent_pid;
	flow_u32 uid;                     /* effective, in the initial user namespace */
	flow_u32 pad;
	char     comm[OWNER_COMM];        /* of the thread group's leader */
};

#ifndef __cplusplus
_Static_assert(sizeof(struct process) == 48, "process is 48 bytes without holes");
#endif

#ifdef FLOW_OWNERS

#define TASK_IS_KERNEL_THREAD 0x00200000 /* PF_KTHREAD */
#define PROCESS_ENTRIES 32768
#define STORAGE_CREATE 1              /* BPF_SK_STORAGE_GET_F_CREATE */
#define STORAGE_FLAGS (1 | 1 << 9)    /* BPF_F_NO_PREALLOC, which it needs; BPF_F_CLONE: accepted sockets inherit it */
#define CURRENT_NAMESPACE ((u64)-1)   /* BPF_F_CURRENT_NETNS */
#define HOOK_ALLOW 1
#define TCP_STATE_LISTEN 10           /* BPF_TCP_LISTEN */

/* Helpers by number, as in flow.bpf.c. */
static u64 (*current_task)(void) = (void *)35;
static u64 (*current_uid_gid)(void) = (void *)15;
static u64 (*current_cgroup_id)(void) = (void *)80;
static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static struct bpf_sock *(*lookup_udp)(void *context, void *tuple, u32 size, u64 namespace, u64 flags) = (void *)85;
static struct bpf_sock *(*lookup_tcp)(void *context, void *tuple, u32 size, u64 namespace, u64 flags) = (void *)99;
static struct bpf_sock *(*listener_of)(struct bpf_sock *socket) = (void *)98;
static long (*release_socket)(struct bpf_sock *socket) = (void *)86;

/* What socket-local storage holds. */
struct socket_owner {
	u64  id;
	char comm[OWNER_COMM];
};

FLOW_INLINE int same_comm(const char *one, const char *other)
{
	const u64 *a = (const u64 *)one, *b = (const u64 *)other;

	return a[0] == b[0] && a[1] == b[1];
}

/* The current process; returns its owner id. A thread of the kernel has FLOW_OWNER_KERNEL and no more. */
FLOW_INLINE u64 read_process(struct process *process)
{
	u64 task = current_task(), leader = 0, parent = 0;
	u32 flags = 0;

	read_kernel(&flags, sizeof(flags), (void *)(task + TASK_FLAGS));
	if (flags & TASK_IS_KERNEL_THREAD)
		return FLOW_OWNER_KERNEL;
	read_kernel(&leader, sizeof(leader), (void *)(task + TASK_GROUP_LEADER));
	read_kernel(&process->pid, sizeof(process->pid), (void *)(leader + TASK_TGID));
	read_kernel(&process->start_ns, sizeof(process->start_ns), (void *)(leader + TASK_START_BOOTTIME));
	read_kernel(process->comm, sizeof(process->comm), (void *)(leader + TASK_COMM));
	read_kernel(&parent, sizeof(parent), (void *)(leader + TASK_REAL_PARENT));
	read_kernel(&process->parent_pid, sizeof(process->parent_pid), (void *)(parent + TASK_TGID));
	process->uid = current_uid_gid();
	return FLOW_OWNER_PROCESS | (process->start_ns >> FLOW_OWNER_START_SHIFT << FLOW_OWNER_PID_BITS &
				     ~(FLOW_OWNER_PROCESS | FLOW_OWNER_ANY_ADDRESS | FLOW_OWNER_SENDER)) | process->pid;
}

/* The octets after the terminating 0 may be those of an earlier name. */
FLOW_INLINE void clear_rest(char *comm)
{
	u32 ended = 0;

#pragma unroll
	for (u32 i = 0; i < OWNER_COMM; i++) {
		if (ended)
			comm[i] = 0;
		if (!comm[i])
			ended = 1;
	}
}

/* Addresses and ports of a flow for the look-up of its receiver; returns the size. */
FLOW_INLINE u32 name_socket(struct bpf_sock_tuple *tuple, struct flow_key *key)
{
	if (key->ip_version == 4) {
		__builtin_memcpy(&tuple->ipv4.saddr, key->source_address, 4);
		__builtin_memcpy(&tuple->ipv4.daddr, key->destination_address, 4);
		tuple->ipv4.sport = from_network_16(key->source_port);
		tuple->ipv4.dport = from_network_16(key->destination_port);
		return sizeof(tuple->ipv4);
	}
	__builtin_memcpy(tuple->ipv6.saddr, key->source_address, 16);
	__builtin_memcpy(tuple->ipv6.daddr, key->destination_address, 16);
	tuple->ipv6.sport = from_network_16(key->source_port);
	tuple->ipv6.dport = from_network_16(key->destination_port);
	return sizeof(tuple->ipv6);
}

/* Whether a socket is for any address of this host; the look-up finds it for addresses of other hosts too. */
FLOW_INLINE int has_no_address(struct bpf_sock *socket, struct flow_key *key)
{
	if (key->ip_version == 4)
		return !socket->src_ip4;
	return !(socket->src_ip6[0] | socket->src_ip6[1] | socket->src_ip6[2] | socket->src_ip6[3]);
}

#endif
#endif
