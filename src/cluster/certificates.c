/*-------------------------------------------------------------------------
 *
 * certificates.c
 *		The life of this member's certificate, and of the authority's key.
 *
 *	init			makes the authority, signs for itself
 *	join			the token's hash names the authority; who takes the token in signs
 *	a new voter		asks another voter for the authority's key
 *	renewal			a voter signs for itself, a replica asks a voter; the key stays
 *	rotation		a new key is announced in Raft, signed, taken into use, and
 *					the old one is then struck off
 *
 * Voters have the authority's key so that no single one is needed, and so that
 * a cluster that was down for longer than its certificates live comes up again: a
 * voter renews its own before it connects to anybody.
 *
 * Process: coordinator.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/err.h>
#include <unistd.h>

#include "cluster/internal.h"
#include "datatype/timestamp.h"

#define LOOK_US				(1000 * 1000)
#define ASK_US				(5 * 1000 * 1000)

static EVP_PKEY *new_key = NULL;	/* announced or about to be */
static uint8 new_hash[QDB_KEY_HASH_SIZE];
static bool old_key_known = false;	/* the state still names our old one */
static int64 next_look_us = 0;
static int64 next_ask_us = 0;
static uint8 company_files[QDB_KEY_HASH_SIZE];	/* as they were last looked at */

/* Who we are, as a certificate says it. */
static void
own_name(QdbCertName *name)
{
	memset(name, 0, sizeof(*name));
	strlcpy(name->cluster_id, qdb_co.self.cluster_id, sizeof(name->cluster_id));
	strlcpy(name->name, qdb_co.self.name, sizeof(name->name));
	strlcpy(name->host, qdb_advertise_host, sizeof(name->host));
	name->member = qdb_co.self.member;
	name->incarnation = qdb_co.self.incarnation;
	name->rotation = qdb_co.state->key_rotation;
}

/* Signs for a member with the authority's key of this node; NULL: it has none. */
static X509 *
sign(EVP_PKEY *public_key, const QdbCertName *name)
{
	X509	   *ca = qdb_load_certificate(QDB_CA_CERT);
	EVP_PKEY   *ca_key = ca != NULL ? qdb_load_key(QDB_CA_KEY) : NULL;
	X509	   *cert = ca_key != NULL ? qdb_issue_certificate(public_key, name, ca, ca_key) : NULL;

	X509_free(ca);
	EVP_PKEY_free(ca_key);
	return cert;
}

bool
qdb_make_certificates(uint8 *key_hash, char *why, size_t why_size)
{
	EVP_PKEY   *ca_key;
	EVP_PKEY   *key;
	X509	   *ca = NULL;
	X509	   *cert = NULL;
	QdbCertName name;
	bool		ok;

	memset(key_hash, 0, QDB_KEY_HASH_SIZE);
	if (qdb_company_certificates())
		return true;
	own_name(&name);
	ca_key = qdb_new_key();
	key = qdb_new_key();
	if (ca_key != NULL && key != NULL)
		ca = qdb_make_authority(ca_key, name.cluster_id);
	if (ca != NULL)
		cert = qdb_issue_certificate(key, &name, ca, ca_key);
	ok = cert != NULL && qdb_hash_key(key, key_hash) &&
		qdb_store_key(QDB_CA_KEY, ca_key) && qdb_store_certificate(QDB_CA_CERT, ca) &&
		qdb_store_node(key, cert);
	if (!ok)
		snprintf(why, why_size, "could not make certificates: %s", qdb_keys_error());
	else
		qdb_keys_changed();
	EVP_PKEY_free(ca_key);
	EVP_PKEY_free(key);
	X509_free(ca);
	X509_free(cert);
	return ok;
}

bool
qdb_can_sign(void)
{
	return qdb_company_certificates() || qdb_plaintext() || access(QDB_CA_KEY, R_OK) == 0;
}

int
qdb_sign_joiner(const QdbMember *member, EVP_PKEY *public_key, char *pem, size_t size)
{
	QdbCertName name;
	X509	   *cert;
	int			length;

	own_name(&name);
	strlcpy(name.name, member->name, sizeof(name.name));
	strlcpy(name.host, member->host, sizeof(name.host));
	name.member = member->id;
	name.incarnation = member->incarnation;
	cert = sign(public_key, &name);
	length = cert != NULL ? qdb_certificate_to_pem(cert, pem, size) : 0;
	X509_free(cert);
	return length;
}

static void
install(X509 *cert, EVP_PKEY *key)
{
	bool		rotated = key == new_key;

	if (!qdb_store_node(key, cert))
	{
		ereport(LOG, (errmsg("[cluster] could not store a certificate: %s", qdb_keys_error())));
		return;
	}
	qdb_keys_changed();
	ereport(LOG, (errmsg("[cluster] this node has a new certificate%s", rotated ? " and a new key" : "")));
	if (rotated)
	{
		EVP_PKEY_free(new_key);
		new_key = NULL;
	}
}

/* A certificate came, or we signed it: is it for the key that we have or announced? */
static void
take_certificate(X509 *cert)
{
	EVP_PKEY   *key = qdb_load_key(QDB_NODE_PEM);
	EVP_PKEY   *wanted = new_key != NULL ? new_key : key;

	if (wanted != NULL && X509_check_private_key(cert, wanted) == 1)
		install(cert, wanted);
	else
		ereport(LOG, (errmsg("[cluster] a certificate came that does not fit this node's key")));
	ERR_clear_error();
	EVP_PKEY_free(key);
}

/* Some connected voter; NULL: there is none. */
static QdbPeer *
find_voter(void)
{
	for (uint32 i = 0; i < qdb_co.state->nmembers; i++)
	{
		QdbPeer    *peer = qdb_mesh_peer(qdb_co.state->members[i].id);

		if (qdb_co.state->members[i].role == QDB_ROLE_VOTER && qdb_peer_connected(peer))
			return peer;
	}
	return NULL;
}

static void
ask(uint8 type, const void *data, uint32 length)
{
	QdbPeer    *peer = qdb_co.now_us >= next_ask_us ? find_voter() : NULL;

	if (peer == NULL)
		return;
	next_ask_us = qdb_co.now_us + ASK_US;
	(void) qdb_mesh_send(peer->member, type, data, length);
}

/* Signs for this node's key, or asks a voter to. */
static void
get_certificate(EVP_PKEY *key)
{
	QdbCertName name;
	X509	   *cert;
	unsigned char *der = NULL;
	int			length;

	own_name(&name);
	cert = sign(key, &name);
	if (cert != NULL)
	{
		take_certificate(cert);
		X509_free(cert);
		return;
	}
	length = i2d_PUBKEY(key, &der);
	if (length > 0)
		ask(QDB_FRAME_CERT_REQUEST, der, (uint32) length);
	OPENSSL_free(der);
}

static void
announced(uint64 unused, uint64 unused2, bool known, QdbResult result)
{
	if (known && result != QDB_OK && result != QDB_UNCHANGED)
	{
		ereport(LOG, (errmsg("[cluster] a new key of this node was refused: %s", qdb_result_text(result))));
		EVP_PKEY_free(new_key);
		new_key = NULL;
	}
}

/* key NULL: the old one is not needed any more. */
static void
announce_key(const uint8 *hash, const uint8 *in_use)
{
	QdbCommand	command;

	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_MEMBER_KEY;
	command.member.id = qdb_co.self.member;
	command.member.incarnation = qdb_co.self.incarnation;
	memcpy(command.member.key_hash, hash, QDB_KEY_HASH_SIZE);
	if (in_use != NULL)
		memcpy(command.member.previous_key_hash, in_use, QDB_KEY_HASH_SIZE);
	(void) qdb_propose(&command, announced, 0, 0);
}

/* A rotation was asked for, or one is under way. */
static void
rotate(const QdbMember *self, const QdbCertName *name, EVP_PKEY *key)
{
	uint8		hash[QDB_KEY_HASH_SIZE];

	if (!qdb_hash_key(key, hash))
		return;
	if (new_key == NULL && name->rotation < qdb_co.state->key_rotation)
	{
		new_key = qdb_new_key();
		if (new_key == NULL || !qdb_hash_key(new_key, new_hash))
			return;
		announce_key(new_hash, hash);
	}
	else if (new_key != NULL && memcmp(self->key_hash, new_hash, sizeof(new_hash)) == 0)
		get_certificate(new_key);
	else if (new_key != NULL)
		announce_key(new_hash, hash);
	old_key_known = false;
	for (int i = 0; i < QDB_KEY_HASH_SIZE; i++)
		old_key_known |= self->previous_key_hash[i] != 0;
	if (new_key == NULL && old_key_known && memcmp(self->key_hash, hash, sizeof(hash)) == 0)
		announce_key(hash, NULL);
}

/* Has a third of its life passed?  Expired ones too. */
static bool
needs_renewal(X509 *cert)
{
	int			days;
	int			seconds;
	int64		age;
	int64		life;

	if (!ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)))
		return true;
	life = qdb_certificate_lifetime_s;
	age = life - ((int64) days * SECS_PER_DAY + seconds);
	return age * 3 > life;
}

/* True: a company's files are others than they were, or cannot be read. */
static bool
note_company_files(void)
{
	const char *const paths[] = {qdb_tls_cert_file, qdb_tls_key_file, qdb_tls_ca_file};
	uint8		hash[QDB_KEY_HASH_SIZE] = {0};
	bool		same = qdb_hash_files(paths, lengthof(paths), hash) && memcmp(hash, company_files, sizeof(hash)) == 0;

	memcpy(company_files, hash, sizeof(hash));
	return !same;
}

/*
 * The settings were read again: so are a company's files, where they have changed.
 * They are tried first, so that a certificate without its key harms nobody.
 */
void
qdb_certificates_reload(void)
{
	const char *why;

	if (!qdb_company_certificates() || qdb_plaintext() || !note_company_files())
		return;
	if (!qdb_tls_files_usable(&why))
	{
		ereport(LOG,
				(errmsg("[cluster] the new certificate files cannot be used: %s", why),
				 errhint("Mend the files and reload. Processes that run go on with those before; one that starts has none.")));
		return;
	}
	qdb_keys_changed();
	ereport(LOG, (errmsg("[cluster] the certificate files were read again")));
}

void
qdb_certificates_begin(void)
{
	X509	   *cert;
	EVP_PKEY   *key;

	if (qdb_company_certificates())
		(void) note_company_files();
	if (qdb_company_certificates() || qdb_plaintext())
		return;
	cert = qdb_load_certificate(QDB_NODE_PEM);
	key = cert != NULL ? qdb_load_key(QDB_NODE_PEM) : NULL;
	if (key == NULL)
		ereport(LOG, (errmsg("[cluster] this member has no usable certificate: %s", qdb_keys_error()),
					  errhint("Without it no member talks to this one: remove it and join it anew.")));
	/* The state is not there yet: the rotation is the old certificate's. */
	else if (needs_renewal(cert) || X509_check_private_key(cert, key) != 1)
	{
		QdbCertName name;
		X509	   *again;

		ERR_clear_error();
		own_name(&name);
		(void) qdb_read_cert_name(cert, &name);
		strlcpy(name.host, qdb_advertise_host, sizeof(name.host));
		again = sign(key, &name);
		if (again != NULL)
			install(again, key);
		X509_free(again);
	}
	X509_free(cert);
	EVP_PKEY_free(key);
}

void
qdb_certificates_turn(void)
{
	const QdbMember *self = qdb_self_member();
	X509	   *cert;
	EVP_PKEY   *key;
	QdbCertName name;

	if (self == NULL || qdb_co.now_us < next_look_us || qdb_company_certificates() || qdb_plaintext())
		return;
	next_look_us = qdb_co.now_us + LOOK_US;
	if (self->role == QDB_ROLE_VOTER && access(QDB_CA_KEY, F_OK) != 0)
		ask(QDB_FRAME_CA_KEY_REQUEST, "", 0);
	cert = qdb_load_certificate(QDB_NODE_PEM);
	key = cert != NULL ? qdb_load_key(QDB_NODE_PEM) : NULL;
	if (key != NULL)
	{
		(void) qdb_read_cert_name(cert, &name);
		rotate(self, &name, key);
		if (new_key == NULL && (needs_renewal(cert) || name.incarnation != qdb_co.self.incarnation))
			get_certificate(key);
	}
	X509_free(cert);
	EVP_PKEY_free(key);
}

/* ---- what other members ask for and send ---- */

static void
give_authority_key(QdbPeer *peer)
{
	const QdbMember *member = qdb_member_by_id(qdb_co.state, peer->member);
	EVP_PKEY   *key;
	char		pem[QDB_PEM_MAX];
	int			length;

	if (member == NULL || member->role != QDB_ROLE_VOTER)
		return;
	key = qdb_load_key(QDB_CA_KEY);
	length = key != NULL ? qdb_key_to_pem(key, pem, sizeof(pem)) : 0;
	if (length > 0)
		(void) qdb_mesh_send(peer->member, QDB_FRAME_CA_KEY, pem, (uint32) length);
	explicit_bzero(pem, sizeof(pem));
	EVP_PKEY_free(key);
}

static void
take_authority_key(const QdbFrame *frame)
{
	EVP_PKEY   *key = qdb_key_from_pem((const char *) frame->payload, frame->length);
	X509	   *ca = qdb_load_certificate(QDB_CA_CERT);

	if (access(QDB_CA_KEY, F_OK) != 0 && key != NULL && ca != NULL && X509_check_private_key(ca, key) == 1 &&
		!qdb_store_key(QDB_CA_KEY, key))
		ereport(LOG, (errmsg("[cluster] could not store the authority's key: %s", qdb_keys_error())));
	ERR_clear_error();
	EVP_PKEY_free(key);
	X509_free(ca);
}

/* Only for a key that the replicated state names as this member's. */
static void
answer_request(QdbPeer *peer, const QdbFrame *frame)
{
	const QdbMember *member = qdb_member_by_id(qdb_co.state, peer->member);
	const unsigned char *der = frame->payload;
	EVP_PKEY   *key = d2i_PUBKEY(NULL, &der, frame->length);
	uint8		hash[QDB_KEY_HASH_SIZE];
	char		pem[QDB_PEM_MAX];
	int			length = 0;

	if (member != NULL && key != NULL && qdb_hash_key(key, hash) &&
		(memcmp(hash, member->key_hash, sizeof(hash)) == 0 ||
		 memcmp(hash, member->previous_key_hash, sizeof(hash)) == 0))
		length = qdb_sign_joiner(member, key, pem, sizeof(pem));
	if (length > 0)
		(void) qdb_mesh_send(peer->member, QDB_FRAME_CERT, pem, (uint32) length);
	ERR_clear_error();
	EVP_PKEY_free(key);
}

void
qdb_receive_certificate_frame(QdbPeer *peer, const QdbFrame *frame)
{
	X509	   *cert;

	if (qdb_company_certificates() || qdb_plaintext())
		return;
	switch (frame->type)
	{
		case QDB_FRAME_CA_KEY_REQUEST:
			give_authority_key(peer);
			break;
		case QDB_FRAME_CA_KEY:
			take_authority_key(frame);
			break;
		case QDB_FRAME_CERT_REQUEST:
			answer_request(peer, frame);
			break;
		case QDB_FRAME_CERT:
			cert = qdb_certificate_from_pem((const char *) frame->payload, frame->length);
			if (cert != NULL)
				take_certificate(cert);
			X509_free(cert);
			break;
		default:
			break;
	}
}
