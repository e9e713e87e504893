/* Preloaded in User Mode Linux, which has no efficient unaligned access: has the verifier check programs as on other
 * machines (BPF_F_ANY_ALIGNMENT). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>

long syscall(long number, ...)
{
	static long (*next)(long, ...);
	union bpf_attr attributes;
	va_list words;
	long word[6];

	va_start(words, number);
	for (int i = 0; i < 6; i++)
		word[i] = va_arg(words, long);
	va_end(words);
	if (!next)
		next = dlsym(RTLD_NEXT, "syscall");
	if (number == __NR_bpf && word[0] == BPF_PROG_LOAD && word[2] <= (long)sizeof(attributes)) {
		memset(&attributes, 0, sizeof(attributes));
		memcpy(&attributes, (void *)word[1], word[2]);
		attributes.prog_flags |= BPF_F_ANY_ALIGNMENT;
		return next(number, word[0], &attributes, word[2]);
	}
	return next(number, word[0], word[1], word[2], word[3], word[4], word[5]);
}
