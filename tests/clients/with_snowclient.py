"""snowclient against the simulator: list, get, update, and the links of references."""

import sys

import requests
from snowclient.client import Client
from snowclient.errors import SnowError

url = sys.argv[1]
body = {"short_description": "PLC stop", "assignment_group": "OT SOC"}
made = requests.post(f"{url}/api/now/table/incident", json=body, auth=("admin", "admin"), timeout=20).json()["result"]

client = Client(url, "admin", "admin")
rows = client.list("incident", sysparm_query=f"number={made['number']}")
assert [row.sys_id for row in rows] == [made["sys_id"]]
record = client.get("incident", made["sys_id"])
assert record.short_description == "PLC stop"
assert client.api.resolve_link(record, "assignment_group").name == "OT SOC"
try:
    client.update("incident", made["sys_id"], short_description="looked at")
    raise SystemExit("a change without Content-Type was taken")
except SnowError as refused:
    # It sends none, which an instance refuses.
    assert "Bad Request" in str(refused), refused
try:
    client.get("incident", "0" * 32)
    raise SystemExit("a record that is not there was found")
except SnowError as refused:
    assert "No Record found" in str(refused), refused
print("snowclient: ok")
