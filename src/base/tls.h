/*-------------------------------------------------------------------------
 *
 * tls.h
 *		TLS 1.3 with certificates on both sides, for channels.
 *
 * The handshake proves that the peer holds the key of a certificate that the
 * cluster's authority (or a company's, by settings) has signed.  Who may do what is then
 * decided by the replicated state: it names each member's public key, so that a
 * removed member, or a certificate made with a stolen authority key, is worth
 * nothing to whoever has the state.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_BASE_TLS_H
#define QDB_BASE_TLS_H

#include <openssl/ssl.h>

#include "base/keys.h"

/* What the handshake found out about the peer. */
typedef struct QdbPeerCert
{
	bool		stranger;		/* signed by itself: may only join */
	QdbCertName name;			/* cluster_id empty: a company's certificate */
	uint8		key_hash[QDB_KEY_HASH_SIZE];
	X509	   *cert;
} QdbPeerCert;

/* Connections are in the clear, by quantadb.development_plaintext. */
extern bool qdb_plaintext(void);

/* Certificates come from quantadb.tls_cert_file and its like. */
extern bool qdb_company_certificates(void);

/*
 * A new TLS session; NULL with *why.  strangers: also those that have no
 * certificate yet, to join.
 */
extern SSL *qdb_tls_accept(bool strangers, const char **why);
extern SSL *qdb_tls_connect(const char **why);

/*
 * For a joiner, with key and no certificate yet: trusts the authority whose certificate has
 * this SHA-256.
 */
extern SSL *qdb_tls_join(EVP_PKEY *key, const uint8 *ca_hash, const char **why);

/* For libcurl's SSL context: the same trust. */
extern bool qdb_tls_trust_hash(SSL_CTX *context, const uint8 *ca_hash);

/* After the handshake.  False: the peer showed no certificate. */
extern bool qdb_tls_read_peer(SSL *ssl, QdbPeerCert *peer);

/*
 * May the owner of this certificate speak as this member?  NULL: yes, or why
 * not.  cert NULL: plaintext.
 */
extern const char *qdb_judge_certificate(const QdbState *state, const QdbPeerCert *cert, const char *cluster_id,
										 uint64 member, uint64 incarnation, const char *name);

/* SHA-256 of the authority's certificate, for join tokens. */
extern bool qdb_authority_hash(uint8 *hash);

/* Can the key files be used as they are now?  *why: if not, why. */
extern bool qdb_tls_files_usable(const char **why);

/* New files are in place: every process uses them from its next connection on. */
extern void qdb_keys_changed(void);

#endif							/* QDB_BASE_TLS_H */
