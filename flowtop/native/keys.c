// SPDX-License-Identifier: Apache-2.0
// The hash index of flowtop/metering/key_index.py: the same hashes, the same cells, the same answers.

#include "native.h"

// Cells that are fetched before the first of them is looked at: an index of many flows is in no cache.
#define AHEAD 32

#define EMPTY UINT64_C(0)
#define DELETED UINT64_C(0xFFFFFFFF)
#define SLOT UINT64_C(0xFFFFFFFF)

// As struct Hasher of keys.py. Keys are `words` u64 long, of the last of which `last_mask` counts.
struct hasher {
	const uint64_t *multipliers; // two a word
	uint64_t offset;
	uint64_t mixers[2];
	uint64_t last_mask;
	int64_t words;
};

// As struct Cells of keys.py. `stored`: the keys of slots, below `capacity`, `stride` words apart, as all keys are.
struct cells {
	uint64_t *cells;
	uint64_t count; // a power of two, at least twice the cells that are not empty
	const uint64_t *stored;
	int64_t capacity;
	int64_t stride;
};

static uint64_t word_of(const struct hasher *hasher, const uint64_t *key, int64_t at)
{
	return at == hasher->words - 1 ? key[at] & hasher->last_mask : key[at];
}

static uint64_t hash_of(const struct hasher *hasher, const uint64_t *key)
{
	uint64_t total = hasher->offset;

	for (int64_t at = 0; at < hasher->words; at++) {
		uint64_t word = word_of(hasher, key, at);

		total += (word & UINT64_C(0xFFFFFFFF)) * hasher->multipliers[2 * at];
		total += (word >> 32) * hasher->multipliers[2 * at + 1];
	}
	for (int at = 0; at < 2; at++) {
		total ^= total >> 32;
		total *= hasher->mixers[at];
	}
	return total >> 32;
}

static int same(const struct hasher *hasher, const uint64_t *one, const uint64_t *other)
{
	uint64_t difference = 0;

	for (int64_t at = 0; at < hasher->words - 1; at++)
		difference |= one[at] ^ other[at];
	difference |= (one[hasher->words - 1] ^ other[hasher->words - 1]) & hasher->last_mask;
	return difference == 0;
}

// Odd, so that a probe visits all cells.
static uint64_t step_of(uint64_t hash)
{
	return hash >> 15 | 1;
}

// The slot in a cell; -1: it holds none, or none that there is.
static int64_t slot_in(uint64_t cell, int64_t capacity)
{
	uint64_t low = cell & SLOT;

	return low == EMPTY || low == DELETED || low > (uint64_t)capacity ? -1 : (int64_t)low - 1;
}

EXPORT void hash_keys(const struct hasher *hasher, const uint64_t *keys, int64_t stride, int64_t n, uint64_t *hashes)
{
	for (int64_t i = 0; i < n; i++)
		hashes[i] = hash_of(hasher, keys + i * stride);
}

// The slots of keys; -1: the key is not there.
EXPORT void find_keys(const struct hasher *hasher, const struct cells *index, const uint64_t *keys,
		      const uint64_t *hashes, int64_t n, int64_t *slots)
{
	uint64_t last = index->count - 1;

	for (int64_t start = 0; start < n; start += AHEAD) {
		int64_t stop = n - start < AHEAD ? n : start + AHEAD;

		for (int64_t i = start; i < stop; i++)
			__builtin_prefetch(index->cells + (hashes[i] & last));
		for (int64_t i = start; i < stop; i++) {
			int64_t slot = slot_in(index->cells[hashes[i] & last], index->capacity);

			if (slot >= 0) {
				__builtin_prefetch(index->stored + slot * index->stride);
				__builtin_prefetch(index->stored + slot * index->stride + hasher->words - 1);
			}
		}
		for (int64_t i = start; i < stop; i++) {
			uint64_t at = hashes[i], step = step_of(at);

			slots[i] = -1;
			for (uint64_t probe = 0; probe < index->count; probe++, at += step) {
				uint64_t cell = index->cells[at & last];
				int64_t slot;

				if (cell == EMPTY)
					break;
				if (cell >> 32 != hashes[i])
					continue;
				slot = slot_in(cell, index->capacity);
				if (slot >= 0 && same(hasher, index->stored + slot * index->stride,
						      keys + i * index->stride)) {
					slots[i] = slot;
					break;
				}
			}
		}
	}
}

// Put entries, which are in no cell, into the first empty cells of their probes. Returns the longest probe; -1: full.
EXPORT int64_t place_entries(uint64_t *cells, uint64_t count, const uint64_t *entries, int64_t n)
{
	uint64_t last = count - 1, longest = 0;

	for (int64_t i = 0; i < n; i++) {
		uint64_t at = entries[i] >> 32, step = step_of(at), probe = 1;

		if (i + AHEAD < n)
			__builtin_prefetch(cells + ((entries[i + AHEAD] >> 32) & last), 1);
		for (; cells[at & last] != EMPTY; at += step)
			if (++probe > count)
				return -1;
		cells[at & last] = entries[i];
		if (probe > longest)
			longest = probe;
	}
	return (int64_t)longest;
}

// The slot of each key; one without gets its own. Of equal keys the last one's slot counts, as in numpy, where the last
// of those that write one cell stays. Returns the longest probe; -1: full. `added`: how many cells were taken.
EXPORT int64_t find_or_insert_keys(const struct hasher *hasher, const struct cells *index, const uint64_t *keys,
				   const uint64_t *hashes, const int64_t *slots, int64_t n, int64_t *owners,
				   int64_t *added)
{
	uint64_t last = index->count - 1, longest = 0;

	*added = 0;
	for (int64_t i = n - 1; i >= 0; i--) {
		uint64_t at = hashes[i], step = step_of(at), probe = 1;

		if (i >= AHEAD)
			__builtin_prefetch(index->cells + (hashes[i - AHEAD] & last), 1);
		for (;; at += step, probe++) {
			uint64_t cell = index->cells[at & last];
			int64_t slot;

			if (probe > index->count)
				return -1;
			if (cell == EMPTY) {
				index->cells[at & last] = hashes[i] << 32 | (uint64_t)(slots[i] + 1);
				owners[i] = slots[i];
				++*added;
				break;
			}
			if (cell >> 32 != hashes[i])
				continue;
			slot = slot_in(cell, index->capacity);
			if (slot >= 0 && (slot == slots[i] || same(hasher, index->stored + slot * index->stride,
								   keys + i * index->stride))) {
				owners[i] = slot;
				break;
			}
		}
		if (probe > longest)
			longest = probe;
	}
	return (int64_t)longest;
}

// Give entries, found by hash and slot, other low halves. Returns how many there are up to the first that is in no cell:
// n, if none is missing.
EXPORT int64_t rewrite_entries(uint64_t *cells, uint64_t count, const uint64_t *hashes, const int64_t *slots,
			       const uint64_t *low, int64_t n)
{
	uint64_t last = count - 1;

	for (int64_t i = 0; i < n; i++) {
		uint64_t at = hashes[i], step = step_of(at), entry = at << 32 | (uint64_t)(slots[i] + 1);

		if (i + AHEAD < n)
			__builtin_prefetch(cells + (hashes[i + AHEAD] & last), 1);
		for (uint64_t probe = 0; cells[at & last] != entry; at += step)
			if (cells[at & last] == EMPTY || ++probe == count)
				return i;
		cells[at & last] = (entry & ~SLOT) | low[i];
	}
	return n;
}
