/* Intel's ipsec-mb as a contestant: a batch of at most 64 packets a call, all in
 * flight together, by each of the ways that the library offers (src/peers/ffi.rs
 * lists them). Which is the best, the bench finds out per suite, direction and
 * length. As the library's users do, arguments are not checked (NOCHECK), and the
 * caller compares ICVs. */

#include <stdlib.h>
#include <string.h>

/* For the header: aligns the key of GCM; no names without a prefix. */
#define LINUX
#define NO_COMPAT_IMB_API_053
#include <intel-ipsec-mb.h>

#include "shim.h"

enum { BURST, SINGLE, SPLIT_BURST, DIRECT, DIRECT_GMAC };

struct mac_sa {
        uint8_t ipad[20], opad[20];
};

struct cbc_sa {
        uint8_t encrypt[176] __attribute__((aligned(16)));
        uint8_t decrypt[176] __attribute__((aligned(16)));
        struct mac_sa mac;
};

struct gcm_sa {
        struct gcm_key_data key;
        uint8_t salt[4];
};

struct mb {
        IMB_MGR *mgr;
        IMB_ARCH arch;
        int suite;
        union {
                void *any;
                struct mac_sa *mac;
                struct cbc_sa *cbc;
                struct gcm_sa *gcm;
        } sas;
        IMB_JOB jobs[BATCH];
        uint8_t nonces[BATCH][16];
        uint8_t tags[BATCH][32];
};

void gmb_mb_free(struct mb *mb)
{
        if (mb == NULL)
                return;
        if (mb->mgr != NULL)
                free_mb_mgr(mb->mgr);
        free(mb->sas.any);
        free(mb);
}

static void pads(IMB_MGR *mgr, const struct sa_keys *keys, struct mac_sa *mac)
{
        uint8_t block[64];

        memset(block, 0x36, sizeof(block));
        for (int i = 0; i < 20; i++)
                block[i] ^= keys->integrity[i];
        IMB_SHA1_ONE_BLOCK(mgr, block, mac->ipad);
        memset(block, 0x5c, sizeof(block));
        for (int i = 0; i < 20; i++)
                block[i] ^= keys->integrity[i];
        IMB_SHA1_ONE_BLOCK(mgr, block, mac->opad);
}

static size_t sa_size(int suite)
{
        switch (suite) {
        case HMAC_SHA1_NULL:
                return sizeof(struct mac_sa);
        case HMAC_SHA1_AES_CBC:
                return sizeof(struct cbc_sa);
        default:
                return sizeof(struct gcm_sa);
        }
}

struct mb *gmb_mb_new(int suite, const struct sa_keys *keys, size_t count)
{
        struct mb *mb = calloc(1, sizeof(*mb));

        if (mb == NULL)
                return NULL;
        mb->suite = suite;
        mb->mgr = alloc_mb_mgr(0);
        if (mb->mgr == NULL || posix_memalign(&mb->sas.any, 64, count * sa_size(suite)) != 0) {
                mb->sas.any = NULL;
                gmb_mb_free(mb);
                return NULL;
        }
        init_mb_mgr_auto(mb->mgr, &mb->arch);
        if (imb_get_errno(mb->mgr) != 0) {
                gmb_mb_free(mb);
                return NULL;
        }
        for (size_t i = 0; i < count; i++) {
                switch (suite) {
                case HMAC_SHA1_NULL:
                        pads(mb->mgr, &keys[i], &mb->sas.mac[i]);
                        break;
                case HMAC_SHA1_AES_CBC:
                        pads(mb->mgr, &keys[i], &mb->sas.cbc[i].mac);
                        IMB_AES_KEYEXP_128(mb->mgr, keys[i].encryption, mb->sas.cbc[i].encrypt,
                                           mb->sas.cbc[i].decrypt);
                        break;
                default:
                        IMB_AES128_GCM_PRE(mb->mgr,
                                           suite == AES_GCM ? keys[i].encryption : keys[i].integrity,
                                           &mb->sas.gcm[i].key);
                        memcpy(mb->sas.gcm[i].salt, keys[i].salt, 4);
                }
        }
        return mb;
}

/* The instructions that the library chose. */
const char *gmb_mb_arch(const struct mb *mb)
{
        static const char *const names[] = { "none", "no AES-NI", "SSE", "AVX", "AVX2", "AVX-512" };

        return (size_t)mb->arch < sizeof(names) / sizeof(names[0]) ? names[mb->arch] : "?";
}

const char *gmb_mb_version(void)
{
        return imb_get_version_str();
}

static const uint8_t *nonce(struct mb *mb, const struct packet *packet, size_t place)
{
        memcpy(mb->nonces[place], mb->sas.gcm[packet->sa].salt, 4);
        memcpy(mb->nonces[place] + 4, packet->esp + HEADER, GCM_IV);
        return mb->nonces[place];
}

static uint8_t *icv_out(struct mb *mb, const struct packet *packet, size_t place, int open, size_t icv)
{
        return open ? mb->tags[place] : packet->esp + packet->len - icv;
}

/* The job of a packet, every field that the suite has. */
static void fill(struct mb *mb, IMB_JOB *job, const struct packet *packet, size_t place, int open)
{
        const size_t icv = mb->suite >= AES_GCM ? ICV_128 : ICV_96;
        const size_t covered = packet->len - icv;
        const struct mac_sa *mac = NULL;

        job->src = packet->esp;
        job->auth_tag_output = icv_out(mb, packet, place, open, icv);
        job->auth_tag_output_len_in_bytes = icv;
        job->cipher_direction = open ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
        job->chain_order = open ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
        job->hash_start_src_offset_in_bytes = 0;
        job->msg_len_to_hash_in_bytes = covered;
        job->cipher_start_src_offset_in_bytes = 0;
        job->msg_len_to_cipher_in_bytes = 0;
        switch (mb->suite) {
        case HMAC_SHA1_NULL:
                mac = &mb->sas.mac[packet->sa];
                job->cipher_mode = IMB_CIPHER_NULL;
                job->hash_alg = IMB_AUTH_HMAC_SHA_1;
                break;
        case HMAC_SHA1_AES_CBC:
                mac = &mb->sas.cbc[packet->sa].mac;
                job->cipher_mode = IMB_CIPHER_CBC;
                job->hash_alg = IMB_AUTH_HMAC_SHA_1;
                job->enc_keys = mb->sas.cbc[packet->sa].encrypt;
                job->dec_keys = mb->sas.cbc[packet->sa].decrypt;
                job->key_len_in_bytes = 16;
                job->iv = packet->esp + HEADER;
                job->iv_len_in_bytes = CBC_IV;
                job->cipher_start_src_offset_in_bytes = HEADER + CBC_IV;
                job->msg_len_to_cipher_in_bytes = covered - HEADER - CBC_IV;
                job->dst = packet->esp + HEADER + CBC_IV;
                break;
        case AES_GCM:
                job->cipher_mode = IMB_CIPHER_GCM;
                job->hash_alg = IMB_AUTH_AES_GMAC;
                job->enc_keys = job->dec_keys = &mb->sas.gcm[packet->sa].key;
                job->key_len_in_bytes = 16;
                job->iv = nonce(mb, packet, place);
                job->iv_len_in_bytes = 12;
                job->u.GCM.aad = packet->esp;
                job->u.GCM.aad_len_in_bytes = HEADER;
                job->cipher_start_src_offset_in_bytes = HEADER + GCM_IV;
                job->msg_len_to_cipher_in_bytes = covered - HEADER - GCM_IV;
                job->dst = packet->esp + HEADER + GCM_IV;
                job->hash_start_src_offset_in_bytes = HEADER + GCM_IV;
                job->msg_len_to_hash_in_bytes = job->msg_len_to_cipher_in_bytes;
                break;
        default:
                job->cipher_mode = IMB_CIPHER_NULL;
                job->hash_alg = IMB_AUTH_AES_GMAC_128;
                job->u.GMAC._key = &mb->sas.gcm[packet->sa].key;
                job->u.GMAC._iv = nonce(mb, packet, place);
                job->u.GMAC.iv_len_in_bytes = 12;
        }
        if (mac != NULL) {
                job->u.HMAC._hashed_auth_key_xor_ipad = mac->ipad;
                job->u.HMAC._hashed_auth_key_xor_opad = mac->opad;
        }
}

static int burst(struct mb *mb, struct packet *packets, size_t count, int open)
{
        IMB_JOB *jobs[BATCH];
        size_t done;

        if (IMB_GET_NEXT_BURST(mb->mgr, count, jobs) != count)
                return 0;
        for (size_t i = 0; i < count; i++)
                fill(mb, jobs[i], &packets[i], i, open);
        done = IMB_SUBMIT_BURST_NOCHECK(mb->mgr, count, jobs);
        while (done < count) {
                size_t more = IMB_FLUSH_BURST(mb->mgr, count - done, jobs);

                if (more == 0)
                        return 0;
                done += more;
        }
        return 1;
}

static int single(struct mb *mb, struct packet *packets, size_t count, int open)
{
        size_t done = 0;

        for (size_t i = 0; i < count; i++) {
                IMB_JOB *job = IMB_GET_NEXT_JOB(mb->mgr);

                fill(mb, job, &packets[i], i, open);
                for (job = IMB_SUBMIT_JOB_NOCHECK(mb->mgr); job != NULL;
                     job = IMB_GET_COMPLETED_JOB(mb->mgr))
                        done++;
        }
        while (IMB_FLUSH_JOB(mb->mgr) != NULL)
                done++;
        return done == count;
}

/* Cipher and hash in a burst each, past the library's queues. */
static int split_burst(struct mb *mb, struct packet *packets, size_t count, int open)
{
        const IMB_CIPHER_DIRECTION way = open ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
        const int cbc = mb->suite == HMAC_SHA1_AES_CBC;
        int good = 1;

        for (size_t i = 0; i < count; i++)
                fill(mb, &mb->jobs[i], &packets[i], i, open);
        if (cbc && !open)
                good &= IMB_SUBMIT_CIPHER_BURST_NOCHECK(mb->mgr, mb->jobs, count, IMB_CIPHER_CBC, way,
                                                        IMB_KEY_128_BYTES) == count;
        good &= IMB_SUBMIT_HASH_BURST_NOCHECK(mb->mgr, mb->jobs, count, IMB_AUTH_HMAC_SHA_1) == count;
        if (cbc && open)
                good &= IMB_SUBMIT_CIPHER_BURST_NOCHECK(mb->mgr, mb->jobs, count, IMB_CIPHER_CBC, way,
                                                        IMB_KEY_128_BYTES) == count;
        return good;
}

static int direct(struct mb *mb, struct packet *packets, size_t count, int open)
{
        struct gcm_context_data ctx;

        for (size_t i = 0; i < count; i++) {
                struct packet *packet = &packets[i];
                const struct gcm_key_data *key = &mb->sas.gcm[packet->sa].key;
                const size_t front = mb->suite == AES_GCM ? HEADER : packet->len - ICV_128;
                uint8_t *body = mb->suite == AES_GCM ? packet->esp + HEADER + GCM_IV : packet->esp;
                const size_t len = mb->suite == AES_GCM ? packet->len - HEADER - GCM_IV - ICV_128 : 0;
                uint8_t *tag = icv_out(mb, packet, i, open, ICV_128);

                if (open)
                        IMB_AES128_GCM_DEC(mb->mgr, key, &ctx, body, body, len, nonce(mb, packet, i),
                                           packet->esp, front, tag, ICV_128);
                else
                        IMB_AES128_GCM_ENC(mb->mgr, key, &ctx, body, body, len, nonce(mb, packet, i),
                                           packet->esp, front, tag, ICV_128);
        }
        return 1;
}

static int direct_gmac(struct mb *mb, struct packet *packets, size_t count, int open)
{
        struct gcm_context_data ctx;

        for (size_t i = 0; i < count; i++) {
                struct packet *packet = &packets[i];
                const struct gcm_key_data *key = &mb->sas.gcm[packet->sa].key;

                IMB_AES128_GMAC_INIT(mb->mgr, key, &ctx, nonce(mb, packet, i), 12);
                IMB_AES128_GMAC_UPDATE(mb->mgr, key, &ctx, packet->esp, packet->len - ICV_128);
                IMB_AES128_GMAC_FINALIZE(mb->mgr, key, &ctx, icv_out(mb, packet, i, open, ICV_128),
                                         ICV_128);
        }
        return 1;
}

/* Whether a way can do a suite. */
int gmb_mb_can(int suite, int way)
{
        switch (way) {
        case BURST:
        case SINGLE:
                return 1;
        case SPLIT_BURST:
                return suite < AES_GCM;
        case DIRECT:
                return suite >= AES_GCM;
        case DIRECT_GMAC:
                return suite == AES_GMAC;
        default:
                return 0;
        }
}

/* Seals or opens at most 64 packets; 0 when the library did not do all. An open
 * packet's `ok` says whether its ICV was right. */
int gmb_mb_run(struct mb *mb, int way, int open, struct packet *packets, size_t count)
{
        const size_t icv = mb->suite >= AES_GCM ? ICV_128 : ICV_96;
        int done = 0;

        if (count > BATCH || !gmb_mb_can(mb->suite, way))
                return 0;
        switch (way) {
        case BURST:
                done = burst(mb, packets, count, open);
                break;
        case SINGLE:
                done = single(mb, packets, count, open);
                break;
        case SPLIT_BURST:
                done = split_burst(mb, packets, count, open);
                break;
        case DIRECT:
                done = direct(mb, packets, count, open);
                break;
        case DIRECT_GMAC:
                done = direct_gmac(mb, packets, count, open);
                break;
        }
        for (size_t i = 0; i < count; i++)
                packets[i].ok = !open || same(mb->tags[i], packets[i].esp + packets[i].len - icv, icv);
        return done;
}
