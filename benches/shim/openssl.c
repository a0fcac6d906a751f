/* OpenSSL 3's EVP as a contestant, one packet after the other. As its careful
 * users do: algorithms fetched once, contexts and keys set up once per SA, and
 * only the IV set again per packet. */

#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "shim.h"

struct ssl_sa {
        EVP_CIPHER_CTX *seal, *open;
        EVP_MAC_CTX *mac;
        uint8_t salt[4];
};

struct ssl {
        int suite;
        size_t count;
        struct ssl_sa *sas;
        EVP_CIPHER *cipher;
        EVP_MAC *hmac;
};

void gmb_ssl_free(struct ssl *ssl)
{
        if (ssl == NULL)
                return;
        for (size_t i = 0; ssl->sas != NULL && i < ssl->count; i++) {
                EVP_CIPHER_CTX_free(ssl->sas[i].seal);
                EVP_CIPHER_CTX_free(ssl->sas[i].open);
                EVP_MAC_CTX_free(ssl->sas[i].mac);
        }
        free(ssl->sas);
        EVP_CIPHER_free(ssl->cipher);
        EVP_MAC_free(ssl->hmac);
        free(ssl);
}

static int cipher_contexts(const struct ssl *ssl, struct ssl_sa *sa, const uint8_t *key)
{
        sa->seal = EVP_CIPHER_CTX_new();
        sa->open = EVP_CIPHER_CTX_new();
        return sa->seal != NULL && sa->open != NULL &&
               EVP_EncryptInit_ex2(sa->seal, ssl->cipher, key, NULL, NULL) == 1 &&
               EVP_DecryptInit_ex2(sa->open, ssl->cipher, key, NULL, NULL) == 1 &&
               EVP_CIPHER_CTX_set_padding(sa->seal, 0) == 1 && EVP_CIPHER_CTX_set_padding(sa->open, 0) == 1;
}

static int mac_context(const struct ssl *ssl, struct ssl_sa *sa, const uint8_t *key)
{
        const OSSL_PARAM digest[] = {
                OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA1", 0),
                OSSL_PARAM_construct_end(),
        };

        sa->mac = EVP_MAC_CTX_new(ssl->hmac);
        return sa->mac != NULL && EVP_MAC_init(sa->mac, key, 20, digest) == 1;
}

struct ssl *gmb_ssl_new(int suite, const struct sa_keys *keys, size_t count)
{
        struct ssl *ssl = calloc(1, sizeof(*ssl));
        int good;

        if (ssl == NULL)
                return NULL;
        ssl->suite = suite;
        ssl->count = count;
        ssl->sas = calloc(count, sizeof(*ssl->sas));
        ssl->cipher = EVP_CIPHER_fetch(NULL, suite == HMAC_SHA1_AES_CBC ? "AES-128-CBC" : "AES-128-GCM", NULL);
        ssl->hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
        good = ssl->sas != NULL && ssl->cipher != NULL && ssl->hmac != NULL;
        for (size_t i = 0; good && i < count; i++) {
                struct ssl_sa *sa = &ssl->sas[i];

                memcpy(sa->salt, keys[i].salt, 4);
                if (suite == AES_GMAC)
                        good = cipher_contexts(ssl, sa, keys[i].integrity);
                else if (suite != HMAC_SHA1_NULL)
                        good = cipher_contexts(ssl, sa, keys[i].encryption);
                if (suite < AES_GCM)
                        good = good && mac_context(ssl, sa, keys[i].integrity);
        }
        if (!good) {
                gmb_ssl_free(ssl);
                return NULL;
        }
        return ssl;
}

const char *gmb_ssl_version(void)
{
        return OpenSSL_version(OPENSSL_VERSION);
}

static int hmac(const struct ssl_sa *sa, const uint8_t *covered, size_t len, uint8_t tag[20])
{
        size_t written;

        return EVP_MAC_init(sa->mac, NULL, 0, NULL) == 1 && EVP_MAC_update(sa->mac, covered, len) == 1 &&
               EVP_MAC_final(sa->mac, tag, &written, 20) == 1;
}

static int cbc(EVP_CIPHER_CTX *ctx, const struct packet *packet)
{
        uint8_t *body = packet->esp + HEADER + CBC_IV;
        int len = (int)(packet->len - HEADER - CBC_IV - ICV_96), written;

        return EVP_CipherInit_ex2(ctx, NULL, NULL, packet->esp + HEADER, -1, NULL) == 1 &&
               EVP_CipherUpdate(ctx, body, &written, body, len) == 1 && written == len;
}

/* Of both MACed suites. */
static int hmac_packet(const struct ssl *ssl, const struct packet *packet, int open)
{
        const struct ssl_sa *sa = &ssl->sas[packet->sa];
        const size_t covered = packet->len - ICV_96;
        uint8_t tag[20];

        if (!open) {
                if (ssl->suite == HMAC_SHA1_AES_CBC && !cbc(sa->seal, packet))
                        return 0;
                if (!hmac(sa, packet->esp, covered, tag))
                        return 0;
                memcpy(packet->esp + covered, tag, ICV_96);
                return 1;
        }
        return hmac(sa, packet->esp, covered, tag) && same(tag, packet->esp + covered, ICV_96) &&
               (ssl->suite != HMAC_SHA1_AES_CBC || cbc(sa->open, packet));
}

static int gcm_packet(const struct ssl *ssl, const struct packet *packet, int open)
{
        const struct ssl_sa *sa = &ssl->sas[packet->sa];
        EVP_CIPHER_CTX *ctx = open ? sa->open : sa->seal;
        uint8_t *icv = packet->esp + packet->len - ICV_128;
        const int aad = ssl->suite == AES_GCM ? HEADER : (int)(packet->len - ICV_128);
        uint8_t *body = packet->esp + HEADER + GCM_IV;
        uint8_t nonce[12];
        int written;

        memcpy(nonce, sa->salt, 4);
        memcpy(nonce + 4, packet->esp + HEADER, GCM_IV);
        if (EVP_CipherInit_ex2(ctx, NULL, NULL, nonce, -1, NULL) != 1 ||
            EVP_CipherUpdate(ctx, NULL, &written, packet->esp, aad) != 1)
                return 0;
        if (ssl->suite == AES_GCM && EVP_CipherUpdate(ctx, body, &written, body, (int)(icv - body)) != 1)
                return 0;
        if (open)
                return EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, ICV_128, icv) == 1 &&
                       EVP_CipherFinal_ex(ctx, icv, &written) == 1;
        return EVP_CipherFinal_ex(ctx, icv, &written) == 1 &&
               EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, ICV_128, icv) == 1;
}

/* Seals or opens; each packet's `ok` says whether that went well. */
void gmb_ssl_run(const struct ssl *ssl, int open, struct packet *packets, size_t count)
{
        for (size_t i = 0; i < count; i++)
                packets[i].ok = ssl->suite < AES_GCM ? hmac_packet(ssl, &packets[i], open)
                                                     : gcm_packet(ssl, &packets[i], open);
}
