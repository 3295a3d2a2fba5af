/*-------------------------------------------------------------------------
 *
 * token_text.c
 *		Write and read the text of a token.
 *
 *-------------------------------------------------------------------------
 */
#include "core/token_text.h"

#include <string.h>

static const char api_prefix[] = "qdbapi.";
static const char join_prefix[] = "qdbjoin.";

static char *
put_hex(char *p, const uint8_t *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++)
	{
		*p++ = digits[bytes[i] >> 4];
		*p++ = digits[bytes[i] & 15];
	}
	return p;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Returns what follows the digits; NULL: there are too few. */
static const char *
get_hex(const char *p, uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		int			high = hex_digit(p[0]);
		int			low = high < 0 ? -1 : hex_digit(p[1]);

		if (low < 0)
			return NULL;
		bytes[i] = (uint8_t) (high << 4 | low);
		p += 2;
	}
	return p;
}

void
qdb_token_format(const QdbTokenText *token, char *text)
{
	uint8_t		id[8];
	char	   *p = text;
	size_t		prefix = token->join ? sizeof(join_prefix) - 1 : sizeof(api_prefix) - 1;

	for (int i = 0; i < 8; i++)
		id[i] = (uint8_t) (token->id >> (56 - 8 * i));
	memcpy(p, token->join ? join_prefix : api_prefix, prefix);
	p = put_hex(p + prefix, id, sizeof(id));
	*p++ = '.';
	p = put_hex(p, token->secret, QDB_SECRET_SIZE);
	if (token->join)
	{
		*p++ = '.';
		p = put_hex(p, token->ca_hash, QDB_CA_HASH_SIZE);
	}
	*p = '\0';
}

bool
qdb_token_parse(const char *text, QdbTokenText *token)
{
	uint8_t		id[8];
	const char *p = text;

	memset(token, 0, sizeof(*token));
	token->join = strncmp(p, join_prefix, sizeof(join_prefix) - 1) == 0;
	if (!token->join && strncmp(p, api_prefix, sizeof(api_prefix) - 1) != 0)
		return false;
	p += token->join ? sizeof(join_prefix) - 1 : sizeof(api_prefix) - 1;
	p = get_hex(p, id, sizeof(id));
	if (p == NULL || *p++ != '.')
		return false;
	p = get_hex(p, token->secret, QDB_SECRET_SIZE);
	if (p != NULL && token->join)
		p = *p == '.' ? get_hex(p + 1, token->ca_hash, QDB_CA_HASH_SIZE) : NULL;
	if (p == NULL || *p != '\0')
		return false;
	for (int i = 0; i < 8; i++)
		token->id = token->id << 8 | id[i];
	return token->id != 0;
}
