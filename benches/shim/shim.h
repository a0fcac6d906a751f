/* What the Rust side (src/peers/ffi.rs) and the shims share. */
#ifndef GM_BENCH_SHIM_H
#define GM_BENCH_SHIM_H

#include <stddef.h>
#include <stdint.h>

/* The order of src/peers/ffi.rs. */
enum { HMAC_SHA1_NULL, HMAC_SHA1_AES_CBC, AES_GCM, AES_GMAC };

/* Key bytes of an SA; those that its suite does not use mean nothing. */
struct sa_keys {
        uint8_t integrity[20];
        uint8_t encryption[16];
        uint8_t salt[4];
};

/* A packet from SPI to ICV, sealed or opened in place. */
struct packet {
        uint8_t *esp;
        size_t len;
        size_t sa;
        int ok;
};

enum { HEADER = 8, ICV_96 = 12, ICV_128 = 16, CBC_IV = 16, GCM_IV = 8, BATCH = 64 };

/* Whether two ICVs are one, in a time that does not depend on them. */
static inline int same(const uint8_t *a, const uint8_t *b, size_t len)
{
        uint8_t different = 0;
        for (size_t i = 0; i < len; i++)
                different |= a[i] ^ b[i];
        return different == 0;
}

#endif
