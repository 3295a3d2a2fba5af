/*-------------------------------------------------------------------------
 *
 * tls.c
 *		TLS contexts of a process, and what certificates are worth.
 *
 * Each process reads the key files when it first needs them, and again when
 * QdbShared.key_generation says that they have changed.  There are no session
 * tickets: a handshake costs less than a millisecond, and a ticket would be one
 * more secret that outlives a removal.
 *
 * Awkward: in TLS 1.3 a client is done before the server has looked at its
 * certificate.  A refusal reaches it as an alert with its first read.
 *
 *-------------------------------------------------------------------------
 */
#include "base/tls.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

typedef struct Contexts
{
	bool		loaded;
	uint32		generation;
	SSL_CTX    *server;
	SSL_CTX    *server_strangers;
	SSL_CTX    *client;
} Contexts;

static Contexts contexts;
static char reason[320];

bool
qdb_plaintext(void)
{
	return qdb_development_plaintext;
}

bool
qdb_company_certificates(void)
{
	return qdb_tls_cert_file != NULL && qdb_tls_cert_file[0] != '\0';
}

static const char *
ca_path(void)
{
	return qdb_company_certificates() ? qdb_tls_ca_file : QDB_CA_CERT;
}

void
qdb_keys_changed(void)
{
	pg_atomic_fetch_add_u32(&qdb_shared->key_generation, 1);
}

bool
qdb_authority_hash(uint8 *hash)
{
	X509	   *ca = qdb_load_certificate(ca_path());
	bool		ok = ca != NULL && qdb_hash_certificate(ca, hash);

	X509_free(ca);
	return ok;
}

/* Keeps a stranger's certificate, which nobody signed, and nothing else. */
static int
admit_strangers(int ok, X509_STORE_CTX *store)
{
	X509	   *cert = X509_STORE_CTX_get_current_cert(store);
	int			error = X509_STORE_CTX_get_error(store);

	if (ok || X509_STORE_CTX_get_error_depth(store) != 0 || cert == NULL || !qdb_is_stranger(cert))
		return ok;
	return error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT ||
		error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY ||
		error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE;
}

static SSL_CTX *
new_context(const SSL_METHOD *method)
{
	SSL_CTX    *context = SSL_CTX_new(method);

	if (context == NULL)
		return NULL;
	if (!SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
		!SSL_CTX_set_num_tickets(context, 0))
	{
		SSL_CTX_free(context);
		return NULL;
	}
	SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					 SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return context;
}

/* Our own certificate, and the authority's behind it, by which a joiner knows it. */
static bool
use_certificate(SSL_CTX *context, X509 *cert, EVP_PKEY *key, X509 *ca)
{
	return SSL_CTX_use_certificate(context, cert) == 1 && SSL_CTX_use_PrivateKey(context, key) == 1 &&
		SSL_CTX_check_private_key(context) == 1 && SSL_CTX_add1_chain_cert(context, ca) == 1 &&
		X509_STORE_add_cert(SSL_CTX_get_cert_store(context), ca) == 1;
}

static SSL_CTX *
make_context(const SSL_METHOD *method, X509 *cert, EVP_PKEY *key, X509 *ca)
{
	SSL_CTX    *context = new_context(method);
	bool		ok;

	if (context == NULL)
		return NULL;
	if (qdb_company_certificates())
		ok = SSL_CTX_use_certificate_chain_file(context, qdb_tls_cert_file) == 1 &&
			SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1 &&
			SSL_CTX_load_verify_file(context, qdb_tls_ca_file) == 1;
	else
		ok = use_certificate(context, cert, key, ca);
	if (ok)
		return context;
	SSL_CTX_free(context);
	return NULL;
}

static void
free_contexts(Contexts *c)
{
	SSL_CTX_free(c->server);
	SSL_CTX_free(c->server_strangers);
	SSL_CTX_free(c->client);
	memset(c, 0, sizeof(*c));
}

/* From the files as they are now.  False: reason says why there are none. */
static bool
make_contexts(Contexts *c)
{
	bool		company = qdb_company_certificates();
	X509	   *cert = qdb_load_certificate(company ? qdb_tls_cert_file : QDB_NODE_PEM);
	EVP_PKEY   *key = cert != NULL ? qdb_load_key(company ? qdb_tls_key_file : QDB_NODE_PEM) : NULL;
	X509	   *ca = key != NULL ? qdb_load_certificate(ca_path()) : NULL;

	memset(c, 0, sizeof(*c));
	if (ca != NULL)
	{
		c->server = make_context(TLS_server_method(), cert, key, ca);
		c->server_strangers = make_context(TLS_server_method(), cert, key, ca);
		c->client = make_context(TLS_client_method(), cert, key, ca);
		c->loaded = c->server != NULL && c->server_strangers != NULL && c->client != NULL;
	}
	if (c->loaded)
		SSL_CTX_set_verify(c->server_strangers, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, admit_strangers);
	else
	{
		snprintf(reason, sizeof(reason), "TLS is not available: %s",
				 ca == NULL ? qdb_keys_error() : "certificate and key do not fit");
		free_contexts(c);
	}
	ERR_clear_error();
	X509_free(cert);
	EVP_PKEY_free(key);
	X509_free(ca);
	return c->loaded;
}

/*
 * False: reason says why there is no TLS now.  Where new files cannot be used, a process
 * that has read those before goes on with them: a mistake in a file cuts nobody off at once.
 */
static bool
load_contexts(void)
{
	uint32		generation = pg_atomic_read_u32(&qdb_shared->key_generation);
	Contexts	fresh;

	if (contexts.loaded && contexts.generation == generation)
		return true;
	if (make_contexts(&fresh))
	{
		free_contexts(&contexts);
		contexts = fresh;
		contexts.generation = generation;
	}
	return contexts.loaded;
}

bool
qdb_tls_files_usable(const char **why)
{
	Contexts	fresh;
	bool		usable = make_contexts(&fresh);

	free_contexts(&fresh);
	*why = reason;
	return usable;
}

static SSL *
new_session(SSL_CTX *context, bool server, const char **why)
{
	SSL		   *ssl = SSL_new(context);

	if (ssl == NULL)
		*why = "could not start a TLS session";
	else if (server)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	return ssl;
}

SSL *
qdb_tls_accept(bool strangers, const char **why)
{
	*why = reason;
	if (!load_contexts())
		return NULL;
	return new_session(strangers ? contexts.server_strangers : contexts.server, true, why);
}

SSL *
qdb_tls_connect(const char **why)
{
	*why = reason;
	if (!load_contexts())
		return NULL;
	return new_session(contexts.client, false, why);
}

/* Does the chain that the peer sent end in the certificate with this hash? */
static int
verify_by_hash(X509_STORE_CTX *context, void *arg)
{
	const uint8 *wanted = arg;

	STACK_OF(X509) * chain = X509_STORE_CTX_get0_untrusted(context);
	X509	   *leaf = X509_STORE_CTX_get0_cert(context);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *check = X509_STORE_CTX_new();
	int			ok = 0;

	for (int i = 0; store != NULL && check != NULL && i < sk_X509_num(chain); i++)
	{
		X509	   *cert = sk_X509_value(chain, i);
		uint8		hash[QDB_KEY_HASH_SIZE];

		if (!qdb_hash_certificate(cert, hash) || !qdb_same_bytes(hash, wanted, sizeof(hash)))
			continue;
		ok = X509_STORE_add_cert(store, cert) && X509_STORE_CTX_init(check, store, leaf, chain) &&
			X509_STORE_CTX_set_purpose(check, X509_PURPOSE_SSL_SERVER) &&
			X509_verify_cert(check) == 1;
		break;
	}
	X509_STORE_CTX_free(check);
	X509_STORE_free(store);
	if (!ok)
		X509_STORE_CTX_set_error(context, X509_V_ERR_CERT_UNTRUSTED);
	return ok;
}

bool
qdb_tls_trust_hash(SSL_CTX *context, const uint8 *ca_hash)
{
	SSL_CTX_set_cert_verify_callback(context, verify_by_hash, (void *) ca_hash);
	return true;
}

/* ca_hash must stay until the handshake is over. */
SSL *
qdb_tls_join(EVP_PKEY *key, const uint8 *ca_hash, const char **why)
{
	SSL_CTX    *context;
	X509	   *cert;
	SSL		   *ssl = NULL;

	if (qdb_company_certificates())
		return qdb_tls_connect(why);
	*why = "could not prepare TLS";
	context = new_context(TLS_client_method());
	cert = qdb_make_stranger(key);
	if (context != NULL && cert != NULL && SSL_CTX_use_certificate(context, cert) == 1 &&
		SSL_CTX_use_PrivateKey(context, key) == 1 && qdb_tls_trust_hash(context, ca_hash))
		ssl = new_session(context, false, why);
	X509_free(cert);
	SSL_CTX_free(context);
	ERR_clear_error();
	return ssl;
}

bool
qdb_tls_read_peer(SSL *ssl, QdbPeerCert *peer)
{
	EVP_PKEY   *key;

	memset(peer, 0, sizeof(*peer));
	peer->cert = SSL_get1_peer_certificate(ssl);
	if (peer->cert == NULL)
		return false;
	(void) qdb_read_cert_name(peer->cert, &peer->name);
	key = X509_get0_pubkey(peer->cert);
	/* admit_strangers let it in, so nobody has signed it. */
	peer->stranger = SSL_is_server(ssl) && qdb_is_stranger(peer->cert) && peer->name.cluster_id[0] == '\0';
	return key != NULL && qdb_hash_key(key, peer->key_hash);
}

static const char *
judge_company(const QdbPeerCert *cert, const QdbMember *member, const char *name)
{
	/* The authority is not ours alone: the name has to be the member's. */
	if (X509_check_host(cert->cert, name, 0, 0, NULL) == 1 ||
		strcmp(cert->name.name, name) == 0)
		return member == NULL || strcmp(member->name, name) == 0 ? NULL : "it names another member";
	return "its certificate does not name it";
}

const char *
qdb_judge_certificate(const QdbState *state, const QdbPeerCert *cert, const char *cluster_id,
					  uint64 id, uint64 incarnation, const char *name)
{
	static const uint8 none[QDB_KEY_HASH_SIZE] = {0};
	const QdbMember *member = qdb_member_by_id(state, id);

	if (qdb_plaintext())
		return NULL;
	if (cert == NULL)
		return "its connection is not encrypted";
	if (cert->stranger)
		return "it has no certificate of this cluster";
	if (member == NULL && id < state->next_member_id)
		return "it was removed from the cluster";
	if (qdb_company_certificates())
		return judge_company(cert, member, name);
	if (strcmp(cert->name.cluster_id, cluster_id) != 0)
		return "its certificate is of another cluster";
	if (cert->name.member != id)
		return "its certificate is another member's";
	/* Our log may be behind: then the authority's word has to do. */
	if (member == NULL || cert->name.rotation > state->key_rotation)
		return NULL;
	if (memcmp(member->key_hash, none, sizeof(none)) == 0 ||
		(memcmp(cert->key_hash, member->key_hash, sizeof(none)) != 0 &&
		 memcmp(cert->key_hash, member->previous_key_hash, sizeof(none)) != 0))
		return "its key is not the member's";
	if (cert->name.incarnation != incarnation && member->incarnation != incarnation)
		return "its certificate is of another incarnation";
	return NULL;
}
