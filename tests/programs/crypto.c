/* What distributions write in assembly: ciphers, hashes, large numbers; and compressors. */
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>
#include <zstd.h>

#define BYTES 65536

static unsigned char text[BYTES], out[2 * BYTES], back[BYTES];
static EVP_PKEY *rsa, *curve, *edwards;

static void check(int good)
{
	if (!good)
		abort();
}

__attribute__((noinline)) void cipher(const EVP_CIPHER *type)
{
	static const unsigned char key[64] = { 1 }, iv[16] = { 2 };
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	int n;

	check(EVP_EncryptInit_ex(context, type, NULL, key, iv));
	check(EVP_EncryptUpdate(context, out, &n, text, BYTES));
	EVP_CIPHER_CTX_free(context);
}

__attribute__((noinline)) void hash(const EVP_MD *type)
{
	unsigned int n;

	check(EVP_Digest(text, BYTES, out, &n, type, NULL));
}

__attribute__((noinline)) void sign(EVP_PKEY *key, const EVP_MD *type)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	size_t n = sizeof(out);

	check(EVP_DigestSignInit(context, NULL, type, NULL, key));
	check(EVP_DigestSign(context, out, &n, text, 100));
	EVP_MD_CTX_free(context);
}

__attribute__((noinline)) void deflated(void)
{
	uLongf packed = sizeof(out), n = BYTES;

	check(compress2(out, &packed, text, BYTES, 6) == Z_OK);
	check(uncompress(back, &n, out, packed) == Z_OK);
}

__attribute__((noinline)) void zstandard(void)
{
	size_t packed = ZSTD_compress(out, sizeof(out), text, BYTES, 3);

	check(ZSTD_decompress(back, BYTES, out, packed) == BYTES);
}

int main(void)
{
	clock_t end = CLOCKS_PER_SEC * (getenv("SECONDS") ? atoi(getenv("SECONDS")) : 4);

	for (int i = 0; i < BYTES; i++)
		text[i] = (i * 2654435761U) >> (24 + i % 7);
	rsa = EVP_RSA_gen(2048);
	curve = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	edwards = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	check(rsa && curve && edwards);
	while (clock() < end) {
		cipher(EVP_aes_256_gcm());
		cipher(EVP_aes_128_cbc());
		cipher(EVP_aes_128_xts());
		cipher(EVP_chacha20_poly1305());
		cipher(EVP_camellia_128_cbc());
		hash(EVP_md5());
		hash(EVP_sha1());
		hash(EVP_sha256());
		hash(EVP_sha512());
		hash(EVP_sha3_256());
		hash(EVP_blake2b512());
		hash(EVP_ripemd160());
		sign(rsa, EVP_sha256());
		for (int i = 0; i < 20; i++) {
			sign(curve, EVP_sha256());
			sign(edwards, NULL);
		}
		deflated();
		for (int i = 0; i < 10; i++)
			zstandard();
	}
	return 0;
}
