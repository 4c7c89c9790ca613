"""servicenowpy against the simulator: it follows the `next` of a Link by the order in which an instance writes it."""

import sys

from servicenowpy import Client, StatusCodeError

JSON = {"Accept": "application/json", "Content-Type": "application/json"}
table = Client(sys.argv[1], "admin", "admin").table("incident")
made = [
    table.post({"short_description": f"page {n:02}", "correlation_id": f"otrelay-py-{n}"}, headers=JSON)
    for n in range(25)
]
assert made[0]["number"].startswith("INC"), made[0]

pages = table.get(sysparm_query="short_descriptionSTARTSWITHpage^ORDERBYnumber", sysparm_limit=10)
assert [row["short_description"] for row in pages] == [f"page {n:02}" for n in range(25)], len(pages)

sys_id = made[3]["sys_id"]
assert table.get_record(sys_id)["correlation_id"] == "otrelay-py-3"
assert [row["sys_id"] for row in table.get_record_by_number(made[3]["number"])] == [sys_id]
assert table.patch(sys_id, {"urgency": "1", "impact": "1"}, headers=JSON)["priority"] == "1"
assert table.put(sys_id, {"short_description": "put"}, headers=JSON)["short_description"] == "put"
table.delete(sys_id)
try:
    table.get_record(sys_id)
    raise SystemExit("a deleted record was found")
except StatusCodeError:
    pass
print("servicenowpy: ok")
