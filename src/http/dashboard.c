/*-------------------------------------------------------------------------
 *
 * dashboard.c
 *		The page that a browser gets at "/".
 *
 * dashboard.html is one file without outside requests; the assembler puts it
 * into the library as it is.  Its Content-Security-Policy allows exactly its own
 * script and style, by their hashes, and requests to this server; so text that
 * comes from elsewhere can never run.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include <openssl/evp.h>

extern const char qdb_dashboard_html[];
extern const char qdb_dashboard_end[];

__asm__(".section .rodata\n"
		".global qdb_dashboard_html\n"
		".global qdb_dashboard_end\n"
		"qdb_dashboard_html:\n"
		".incbin \"" QDB_DASHBOARD_FILE "\"\n"
		"qdb_dashboard_end:\n"
		".byte 0\n"
		".previous\n");

static char policy[512];

/* 'sha256-...' of what is between two tags. */
static void
append_hash(char *out, size_t size, const char *begin_tag, const char *end_tag)
{
	const char *begin = strstr(qdb_dashboard_html, begin_tag);
	const char *end;
	unsigned char hash[EVP_MAX_MD_SIZE];
	char		text[64];
	size_t		used = strlen(out);

	if (begin == NULL)
		return;
	begin += strlen(begin_tag);
	end = strstr(begin, end_tag);
	if (end == NULL || EVP_Digest(begin, end - begin, hash, NULL, EVP_sha256(), NULL) != 1)
		return;
	EVP_EncodeBlock((unsigned char *) text, hash, 32);
	snprintf(out + used, size - used, " 'sha256-%s'", text);
}

void
qdb_prepare_dashboard(void)
{
	strlcpy(policy, "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
			"frame-ancestors 'none'; img-src data:; script-src", sizeof(policy));
	append_hash(policy, sizeof(policy), "<script>", "</script>");
	strlcat(policy, "; style-src", sizeof(policy));
	append_hash(policy, sizeof(policy), "<style>", "</style>");
}

void
qdb_put_dashboard(QdbHttpAnswer *answer)
{
	resetStringInfo(&answer->body);
	appendBinaryStringInfo(&answer->body, qdb_dashboard_html,
						   (int) (qdb_dashboard_end - qdb_dashboard_html));
	answer->content_type = "text/html; charset=utf-8";
	answer->policy = policy;
}
