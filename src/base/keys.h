/*-------------------------------------------------------------------------
 *
 * keys.h
 *		Private keys and certificates of a member, and their files.
 *
 *	quantadb/keys/ca.crt	the cluster's authority, on every member
 *	quantadb/keys/ca.key	its key, on voters
 *	quantadb/keys/node.pem	this member's key and certificate, replaced as one
 *
 * All are PEM, mode 0600.  Keys are PKCS #8, encrypted where
 * quantadb.key_passphrase_command is set.  A node certificate names cluster,
 * member, incarnation and key rotation in a URI; the hash of its public
 * key stands in the replicated state, which has the last word (tls.h).
 *
 * Functions return NULL or false where OpenSSL or the file system fails; qdb_keys_error()
 * says why.  No errors are raised.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_BASE_KEYS_H
#define QDB_BASE_KEYS_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/base.h"
#include "core/join.h"
#include "core/peer.h"

#define QDB_KEYS_DIR		QDB_DIR "/keys"
#define QDB_CA_CERT			QDB_KEYS_DIR "/ca.crt"
#define QDB_CA_KEY			QDB_KEYS_DIR "/ca.key"
#define QDB_NODE_PEM		QDB_KEYS_DIR "/node.pem"

/* Postmaster, at start: asks the command for the passphrase; children inherit it. */
extern void qdb_read_passphrase(void);

extern const char *qdb_keys_error(void);
extern EVP_PKEY *qdb_new_key(void);

/* SHA-256 of the public key's DER; hash has QDB_KEY_HASH_SIZE bytes. */
extern bool qdb_hash_key(EVP_PKEY *key, uint8 *hash);
extern bool qdb_hash_certificate(X509 *cert, uint8 *hash);

/* The certificate of a new cluster's authority. */
extern X509 *qdb_make_authority(EVP_PKEY *key, const char *cluster_id);

/* A node certificate for this public key, valid for quantadb.certificate_lifetime. */
extern X509 *qdb_issue_certificate(EVP_PKEY *public_key, const QdbCertName *name,
								   X509 *ca, EVP_PKEY *ca_key);

/* What a joiner shows before it has a certificate: signed by nobody but itself. */
extern X509 *qdb_make_stranger(EVP_PKEY *key);
extern bool qdb_is_stranger(X509 *cert);

/* Reads the name that qdb_issue_certificate wrote; false: it has none. */
extern bool qdb_read_cert_name(X509 *cert, QdbCertName *name);

/* Files; NULL: not there or not readable. */
extern X509 *qdb_load_certificate(const char *path);
extern EVP_PKEY *qdb_load_key(const char *path);
extern bool qdb_store_certificate(const char *path, X509 *cert);
extern bool qdb_store_key(const char *path, EVP_PKEY *key);
extern bool qdb_store_node(EVP_PKEY *key, X509 *cert);	/* QDB_NODE_PEM */
extern bool qdb_make_keys_folder(void);

/* SHA-256 of these files together; false: one cannot be read. */
extern bool qdb_hash_files(const char *const *paths, int n, uint8 *hash);

/* PEM text in memory; unencrypted, for the wire inside of TLS.  0: failed. */
extern int	qdb_certificate_to_pem(X509 *cert, char *pem, size_t size);
extern int	qdb_key_to_pem(EVP_PKEY *key, char *pem, size_t size);
extern X509 *qdb_certificate_from_pem(const char *pem, size_t length);
extern EVP_PKEY *qdb_key_from_pem(const char *pem, size_t length);

#endif							/* QDB_BASE_KEYS_H */
