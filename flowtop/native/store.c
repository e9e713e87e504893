// SPDX-License-Identifier: Apache-2.0
// Slots that are used again: their items in all columns become zero. See FlowStore of flowtop/metering/store.py.

#include "native.h"

#define AHEAD 16

// As struct Column of store.py.
struct column {
	uint8_t *items;
	int64_t size;
};

// Returns how many slots there are up to the first that is not below `capacity`: n, if all are.
EXPORT int64_t clear_items(const struct column *columns, int64_t count, int64_t capacity, const int64_t *slots, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		if (slots[i] < 0 || slots[i] >= capacity)
			return i;
	for (int64_t number = 0; number < count; number++) {
		const struct column *column = columns + number;

		for (int64_t i = 0; i < n; i++) {
			if (i + AHEAD < n)
				__builtin_prefetch(column->items + slots[i + AHEAD] * column->size, 1);
			memset(column->items + slots[i] * column->size, 0, (size_t)column->size);
		}
	}
	return n;
}
