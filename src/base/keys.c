/*-------------------------------------------------------------------------
 *
 * keys.c
 *		Make, sign, store and read keys and certificates.
 *
 * Keys are on P-256: small, fast to sign with, and known to every library that
 * checks HTTPS.  Names go into certificates through typed structures and never
 * through OpenSSL's text syntax, where a comma in a name would mean something.
 *
 * Awkward: OpenSSL asks on the terminal for a passphrase when no callback is
 * given.  Every read here gives one.
 *
 *-------------------------------------------------------------------------
 */
#include "base/keys.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_perm.h"

#define STRANGER_NAME		"quantadb joiner"
#define CA_DAYS				(20 * 365)
#define STRANGER_SECONDS	3600
#define CLOCK_SKEW_SECONDS	86400	/* hosts whose clocks differ */
#define PASSPHRASE_SIZE		256

static char error[256];
static char passphrase[PASSPHRASE_SIZE];
static bool have_passphrase = false;

const char *
qdb_keys_error(void)
{
	return error;
}

/* Notes why, with OpenSSL's own reason where it has one. */
static void
note_error(const char *what)
{
	unsigned long code = ERR_get_error();

	if (code != 0)
		snprintf(error, sizeof(error), "%s: %s", what,
				 ERR_reason_error_string(code) ? ERR_reason_error_string(code) : "OpenSSL error");
	else
		snprintf(error, sizeof(error), "%s", what);
	ERR_clear_error();
}

/*
 * The command's output, one line, is the passphrase.  In the postmaster
 * only: later processes inherit it, so that a renewal or a new walreceiver does
 * not run the command again.
 */
void
qdb_read_passphrase(void)
{
	FILE	   *pipe;
	size_t		length;

	if (qdb_key_passphrase_command == NULL || qdb_key_passphrase_command[0] == '\0')
		return;
	pipe = popen(qdb_key_passphrase_command, "r");
	if (pipe == NULL || fgets(passphrase, sizeof(passphrase), pipe) == NULL)
		passphrase[0] = '\0';
	if (pipe == NULL || pclose(pipe) != 0 || passphrase[0] == '\0')
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("quantadb.key_passphrase_command gave no passphrase"),
				 errhint("It must print one line and end with status 0.")));
	length = strcspn(passphrase, "\r\n");
	passphrase[length] = '\0';
	have_passphrase = length > 0;
}

static int
give_passphrase(char *buf, int size, int writing, void *arg)
{
	int			length = (int) strlen(passphrase);

	if (!have_passphrase || length >= size)
		return -1;
	memcpy(buf, passphrase, length);
	return length;
}

EVP_PKEY *
qdb_new_key(void)
{
	EVP_PKEY   *key = EVP_EC_gen("P-256");

	if (key == NULL)
		note_error("could not make a key");
	return key;
}

bool
qdb_hash_key(EVP_PKEY *key, uint8 *hash)
{
	unsigned char *der = NULL;
	int			length = i2d_PUBKEY(key, &der);
	bool		ok = length > 0 && EVP_Digest(der, length, hash, NULL, EVP_sha256(), NULL) == 1;

	OPENSSL_free(der);
	if (!ok)
		note_error("could not hash a key");
	return ok;
}

bool
qdb_hash_certificate(X509 *cert, uint8 *hash)
{
	return X509_digest(cert, EVP_sha256(), hash, NULL) == 1;
}

/* The parts that all our certificates have. */
static X509 *
begin_certificate(EVP_PKEY *key, const char *organization, const char *common_name, long seconds)
{
	X509	   *cert = X509_new();
	X509_NAME  *subject = cert != NULL ? X509_get_subject_name(cert) : NULL;
	BIGNUM	   *serial = BN_new();

	if (subject == NULL || serial == NULL ||
		!BN_rand(serial, 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) ||
		BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(cert)) == NULL ||
		!X509_set_version(cert, 2) ||
		X509_gmtime_adj(X509_getm_notBefore(cert), -CLOCK_SKEW_SECONDS) == NULL ||
		X509_gmtime_adj(X509_getm_notAfter(cert), seconds) == NULL ||
		!X509_set_pubkey(cert, key) ||
		(organization != NULL &&
		 !X509_NAME_add_entry_by_NID(subject, NID_organizationName, MBSTRING_UTF8,
									 (const unsigned char *) organization, -1, -1, 0)) ||
		!X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8,
									(const unsigned char *) common_name, -1, -1, 0))
	{
		note_error("could not make a certificate");
		X509_free(cert);
		cert = NULL;
	}
	BN_free(serial);
	return cert;
}

/* value is a literal of ours: OpenSSL parses it. */
static bool
add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX	context;
	X509_EXTENSION *extension;
	bool		ok;

	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	ok = extension != NULL && X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
	return ok;
}

static X509 *
finish_certificate(X509 *cert, X509 *issuer, EVP_PKEY *issuer_key, bool ok)
{
	if (ok && X509_set_issuer_name(cert, X509_get_subject_name(issuer)) &&
		X509_sign(cert, issuer_key, EVP_sha256()) > 0)
		return cert;
	note_error("could not sign a certificate");
	X509_free(cert);
	return NULL;
}

X509 *
qdb_make_authority(EVP_PKEY *key, const char *cluster_id)
{
	X509	   *cert = begin_certificate(key, cluster_id, "QuantaDB authority", CA_DAYS * 86400L);

	if (cert == NULL)
		return NULL;
	return finish_certificate(cert, cert, key,
							  add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
							  add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
							  add_extension(cert, cert, NID_subject_key_identifier, "hash"));
}

static bool
add_name(GENERAL_NAMES *names, int type, const void *bytes, int length)
{
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_STRING *string = ASN1_STRING_type_new(type == GEN_IPADD ? V_ASN1_OCTET_STRING : V_ASN1_IA5STRING);

	if (name == NULL || string == NULL || !ASN1_STRING_set(string, bytes, length))
	{
		GENERAL_NAME_free(name);
		ASN1_STRING_free(string);
		return false;
	}
	GENERAL_NAME_set0_value(name, type, string);
	if (sk_GENERAL_NAME_push(names, name) > 0)
		return true;
	GENERAL_NAME_free(name);
	return false;
}

static bool
add_host(GENERAL_NAMES *names, const char *host)
{
	unsigned char address[16];

	if (inet_pton(AF_INET, host, address) == 1)
		return add_name(names, GEN_IPADD, address, 4);
	if (inet_pton(AF_INET6, host, address) == 1)
		return add_name(names, GEN_IPADD, address, 16);
	return host[0] == '\0' || add_name(names, GEN_DNS, host, (int) strlen(host));
}

/* Who it is for peers (URI) and where it is for HTTPS clients. */
static bool
add_names(X509 *cert, const QdbCertName *name)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	char		uri[QDB_CERT_URI_SIZE];
	bool		ok;

	qdb_cert_uri_format(name, uri, sizeof(uri));
	ok = names != NULL && add_name(names, GEN_URI, uri, (int) strlen(uri)) &&
		add_host(names, name->host) && add_host(names, "localhost") &&
		add_host(names, "127.0.0.1") && add_host(names, "::1") &&
		X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0) == 1;
	GENERAL_NAMES_free(names);
	return ok;
}

X509 *
qdb_issue_certificate(EVP_PKEY *public_key, const QdbCertName *name, X509 *ca, EVP_PKEY *ca_key)
{
	X509	   *cert = begin_certificate(public_key, name->cluster_id, name->name,
										 qdb_certificate_lifetime_s);

	if (cert == NULL)
		return NULL;
	return finish_certificate(cert, ca, ca_key,
							  add_extension(cert, ca, NID_basic_constraints, "critical,CA:FALSE") &&
							  add_extension(cert, ca, NID_key_usage, "critical,digitalSignature") &&
							  add_extension(cert, ca, NID_ext_key_usage, "serverAuth,clientAuth") &&
							  add_extension(cert, ca, NID_authority_key_identifier, "keyid") &&
							  add_names(cert, name));
}

X509 *
qdb_make_stranger(EVP_PKEY *key)
{
	X509	   *cert = begin_certificate(key, NULL, STRANGER_NAME, STRANGER_SECONDS);

	if (cert == NULL)
		return NULL;
	return finish_certificate(cert, cert, key,
							  add_extension(cert, cert, NID_basic_constraints, "critical,CA:FALSE"));
}

static bool
read_common_name(X509 *cert, char *name, size_t size)
{
	return X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, (int) size) > 0;
}

bool
qdb_is_stranger(X509 *cert)
{
	char		name[64];

	return read_common_name(cert, name, sizeof(name)) && strcmp(name, STRANGER_NAME) == 0;
}

bool
qdb_read_cert_name(X509 *cert, QdbCertName *name)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	bool		found = false;

	memset(name, 0, sizeof(*name));
	(void) read_common_name(cert, name->name, sizeof(name->name));
	for (int i = 0; names != NULL && !found && i < sk_GENERAL_NAME_num(names); i++)
	{
		int			type;
		ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);

		found = type == GEN_URI && ASN1_STRING_length(value) > 0 &&
			qdb_cert_uri_parse(ASN1_STRING_get0_data(value), ASN1_STRING_length(value), name);
	}
	GENERAL_NAMES_free(names);
	if (!found)
		name->cluster_id[0] = '\0';
	return found;
}

/* ---- PEM ---- */

static int
take_pem(BIO *bio, bool ok, char *pem, size_t size)
{
	char	   *data;
	long		length = ok ? BIO_get_mem_data(bio, &data) : 0;

	if (length <= 0 || (size_t) length >= size)
		length = 0;
	else
		memcpy(pem, data, length);
	pem[length] = '\0';
	BIO_free(bio);
	if (length == 0)
		note_error("could not write PEM");
	return (int) length;
}

int
qdb_certificate_to_pem(X509 *cert, char *pem, size_t size)
{
	BIO		   *bio = BIO_new(BIO_s_mem());

	return take_pem(bio, bio != NULL && PEM_write_bio_X509(bio, cert), pem, size);
}

int
qdb_key_to_pem(EVP_PKEY *key, char *pem, size_t size)
{
	BIO		   *bio = BIO_new(BIO_s_mem());

	return take_pem(bio, bio != NULL &&
					PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), pem, size);
}

X509 *
qdb_certificate_from_pem(const char *pem, size_t length)
{
	BIO		   *bio = BIO_new_mem_buf(pem, (int) length);
	X509	   *cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, give_passphrase, NULL) : NULL;

	BIO_free(bio);
	if (cert == NULL)
		note_error("could not read a certificate");
	return cert;
}

EVP_PKEY *
qdb_key_from_pem(const char *pem, size_t length)
{
	BIO		   *bio = BIO_new_mem_buf(pem, (int) length);
	EVP_PKEY   *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, give_passphrase, NULL) : NULL;

	BIO_free(bio);
	if (key == NULL)
		note_error("could not read a private key");
	return key;
}

/* ---- files ---- */

bool
qdb_make_keys_folder(void)
{
	if ((mkdir(QDB_DIR, pg_dir_create_mode) == 0 || errno == EEXIST) &&
		(mkdir(QDB_KEYS_DIR, S_IRWXU) == 0 || errno == EEXIST))
		return true;
	snprintf(error, sizeof(error), "could not create directory \"%s\": %s", QDB_KEYS_DIR, strerror(errno));
	return false;
}

/* Reads a small file; its length, or 0. */
static size_t
read_file(const char *path, char *buf, size_t size)
{
	FILE	   *file = fopen(path, "r");
	size_t		length;

	if (file == NULL)
	{
		snprintf(error, sizeof(error), "could not open file \"%s\": %s", path, strerror(errno));
		return 0;
	}
	length = fread(buf, 1, size, file);
	fclose(file);
	return length == size ? 0 : length;
}

bool
qdb_hash_files(const char *const *paths, int n, uint8 *hash)
{
	static char text[16 * 1024];
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool		ok = context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;

	for (int i = 0; ok && i < n; i++)
	{
		size_t		length = read_file(paths[i], text, sizeof(text));

		ok = length > 0 && EVP_DigestUpdate(context, &length, sizeof(length)) == 1 &&
			EVP_DigestUpdate(context, text, length) == 1;
	}
	ok = ok && EVP_DigestFinal_ex(context, hash, NULL) == 1;
	EVP_MD_CTX_free(context);
	explicit_bzero(text, sizeof(text));
	return ok;
}

X509 *
qdb_load_certificate(const char *path)
{
	static char pem[16 * 1024];
	size_t		length = read_file(path, pem, sizeof(pem));

	return length > 0 ? qdb_certificate_from_pem(pem, length) : NULL;
}

EVP_PKEY *
qdb_load_key(const char *path)
{
	static char pem[16 * 1024];
	size_t		length = read_file(path, pem, sizeof(pem));
	EVP_PKEY   *key = length > 0 ? qdb_key_from_pem(pem, length) : NULL;

	explicit_bzero(pem, sizeof(pem));
	return key;
}

static bool
store(const char *path, const char *pem, int length)
{
	mode_t		mask;
	bool		ok;

	if (length <= 0 || !qdb_make_keys_folder())
		return false;
	/* The server may let its group read the data directory; never these. */
	mask = umask(S_IRWXG | S_IRWXO);
	ok = qdb_write_file(path, pem, length);
	umask(mask);
	if (!ok)
		snprintf(error, sizeof(error), "could not write file \"%s\"", path);
	return ok;
}

bool
qdb_store_certificate(const char *path, X509 *cert)
{
	char		pem[QDB_PEM_MAX];

	return store(path, pem, qdb_certificate_to_pem(cert, pem, sizeof(pem)));
}

static bool
write_key(BIO *bio, EVP_PKEY *key)
{
	return bio != NULL &&
		PEM_write_bio_PKCS8PrivateKey(bio, key, have_passphrase ? EVP_aes_256_cbc() : NULL,
									  have_passphrase ? passphrase : NULL,
									  have_passphrase ? (int) strlen(passphrase) : 0, NULL, NULL);
}

static bool
store_bio(const char *path, BIO *bio, bool written)
{
	char		pem[2 * QDB_PEM_MAX];
	bool		ok = store(path, pem, take_pem(bio, written, pem, sizeof(pem)));

	explicit_bzero(pem, sizeof(pem));
	return ok;
}

bool
qdb_store_key(const char *path, EVP_PKEY *key)
{
	BIO		   *bio = BIO_new(BIO_s_mem());

	return store_bio(path, bio, write_key(bio, key));
}

bool
qdb_store_node(EVP_PKEY *key, X509 *cert)
{
	BIO		   *bio = BIO_new(BIO_s_mem());

	return store_bio(QDB_NODE_PEM, bio, write_key(bio, key) && PEM_write_bio_X509(bio, cert));
}
