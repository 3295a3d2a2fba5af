/*-------------------------------------------------------------------------
 *
 * page.c
 *		The page that a browser gets at "/".
 *
 * It shows what GET /cluster/status says and asks again each second.  Nothing
 * is loaded from elsewhere, and every value enters the page as text.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

static const char page[] =
"<!DOCTYPE html>\n"
"<html lang=\"en\"><head><meta charset=\"utf-8\"><title>QuantaDB</title>\n"
"<meta name=\"viewport\" content=\"width=device-width\">\n"
"<style>body{font:15px system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse}"
"td,th{padding:.35em .9em;border-bottom:1px solid #ddd;text-align:left}.bad{color:#b00}</style>\n"
"</head><body><h1 id=\"title\">QuantaDB</h1><p id=\"summary\">Loading.</p>\n"
"<table><thead><tr><th>node</th><th>role</th><th>state</th><th>address</th><th>connected</th>"
"<th>WAL end</th><th>lag (bytes)</th><th>cannot become primary because it</th></tr></thead>"
"<tbody id=\"nodes\"></tbody></table>\n"
"<script>\n"
"const el = id => document.getElementById(id);\n"
"function row(n) {\n"
"  const tr = document.createElement('tr');\n"
"  for (const v of [n.name, n.role, n.state, n.host + ':' + n.sql_port, n.connected ? 'yes' : 'no',\n"
"                   n.wal_end, n.lag_bytes, n.why_not]) {\n"
"    const td = document.createElement('td');\n"
"    td.textContent = v === null ? '' : v;\n"
"    tr.append(td);\n"
"  }\n"
"  return tr;\n"
"}\n"
"async function refresh() {\n"
"  try {\n"
"    const s = await (await fetch('/cluster/status', {cache: 'no-store'})).json();\n"
"    el('title').textContent = s.cluster ? 'QuantaDB: ' + s.cluster : 'QuantaDB';\n"
"    el('summary').className = s.primary ? '' : 'bad';\n"
"    el('summary').textContent = s.state === 'inert' ? 'This server is not a member of a cluster.' :\n"
"      (s.primary ? 'Primary: ' + s.primary : 'There is no primary now') + '. Epoch ' + s.epoch +\n"
"      ', timeline ' + s.timeline + '. Survives the loss of ' + s.can_lose + ' more. As seen by ' + s.node +\n"
"      (s.paused ? '. Automatic failover is paused.' : '.');\n"
"    el('nodes').replaceChildren(...s.nodes.map(row));\n"
"  } catch (e) {\n"
"    el('summary').className = 'bad';\n"
"    el('summary').textContent = 'This node does not answer.';\n"
"  }\n"
"  setTimeout(refresh, 1000);\n"
"}\n"
"refresh();\n"
"</script></body></html>\n";

const char *
qdb_http_page(void)
{
	return page;
}
