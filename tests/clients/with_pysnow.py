"""pysnow against the simulator: basic and OAuth, create, read, query, page, update, close, delete, attach."""

import sys
import tempfile
from urllib.parse import urlparse

import pysnow
import requests

url = sys.argv[1]
host = urlparse(url).netloc
basic = pysnow.Client(host=host, user="admin", password="admin", use_ssl=False)

oauth = pysnow.OAuthClient(client_id="otrelay", client_secret="otrelay", host=host, use_ssl=False)
token = oauth.generate_token("admin", "admin")
assert token["expires_in"] == 1799, token
assert oauth.generate_token("admin", "admin")["access_token"] == token["access_token"]
oauth.set_token(token)
try:
    oauth.generate_token("admin", "wrong")
    raise SystemExit("a wrong password got a token")
except pysnow.exceptions.TokenCreateError as refused:
    assert "access_denied" in str(refused.description), vars(refused)

for client in (basic, oauth):
    incidents = client.resource(api_path="/table/incident")
    made = incidents.create(
        payload={
            "short_description": "PLC stop",
            "impact": "1",
            "urgency": "2",
            "priority": "5",
            "no_such_field": "x",
            "category": "no such choice",
            "correlation_id": "otrelay-pysnow",
            "work_notes": "first",
        }
    ).one()
    assert made["number"].startswith("INC001"), made
    assert made["priority"] == "2" and made["category"] == "inquiry", made
    assert "no_such_field" not in made and made["work_notes"] == "", made
    assert made["opened_by"]["link"].startswith(url + "/api/now/table/sys_user/"), made

    # pysnow reads the record by the query, then updates it by PUT.
    changed = incidents.update(query={"number": made["number"]}, payload={"state": "2"}).one()
    assert changed["state"] == "2" and changed["sys_mod_count"] == "1", changed

    shown = client.resource(api_path="/table/incident")
    shown.parameters.display_value = True
    assert shown.get(query={"sys_id": made["sys_id"]}).one()["state"] == "In Progress"
    shown.parameters.display_value = False

    try:
        incidents.update(query={"number": made["number"]}, payload={"state": "6"})
        incidents.update(query={"number": made["number"]}, payload={"state": "6"}).one()
        raise SystemExit("resolved without close code")
    except requests.exceptions.HTTPError as refused:
        assert refused.response.status_code == 403
        assert "Data Policy Exception" in refused.response.text
    closed = incidents.update(
        query={"number": made["number"]},
        payload={"state": "7", "close_code": "Solution provided", "close_notes": "done"},
    ).one()
    assert closed["active"] == "false" and closed["closed_at"], closed

    for number in range(25):
        incidents.create(payload={"short_description": f"page {number:02}"}).one()
    query = (
        pysnow.QueryBuilder().field("short_description").starts_with("page ").AND().field("active").equals("true")
        .AND().field("sys_id").order_ascending()
    )
    pages = [incidents.get(query=query, limit=10, offset=at, fields=["sys_id"]).all() for at in (0, 10, 20)]
    found = {row["sys_id"] for page in pages for row in page}
    assert [len(page) for page in pages] == [10, 10, 5] and len(found) == 25, pages
    assert incidents.get(query=query, limit=1).headers["X-Total-Count"] == "25"

    streamed = incidents.get(query=query, stream=True)
    assert sum(1 for _ in streamed.all()) == 25
    assert incidents.get(query={"number": "INC0"}, stream=True).first_or_none() is None

    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(b"capture")
        file.flush()
        incidents.attachments.upload(sys_id=made["sys_id"], file_path=file.name)
    assert [a["size_bytes"] for a in incidents.attachments.get(sys_id=made["sys_id"])] == ["7"]

    for row in found:
        incidents.delete(query={"sys_id": row})
    incidents.delete(query={"sys_id": made["sys_id"]})
    assert incidents.get(query={}).all() == []

try:
    basic.resource(api_path="/table/no_such_table").get(query={}).all()
    raise SystemExit("an unknown table answered")
except requests.exceptions.HTTPError as refused:
    assert refused.response.status_code == 400 and "Invalid table" in refused.response.text
print("pysnow: ok")
