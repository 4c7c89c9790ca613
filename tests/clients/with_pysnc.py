"""PySNC against the simulator over TLS: three ways to log in, create, read, query, page, update, close, batch."""

import sys

import pysnc
from pysnc.auth import ServiceNowClientCredentialsFlow, ServiceNowPasswordGrantFlow

url, ca = sys.argv[1:3]
flows = [
    ("admin", "admin"),
    ServiceNowPasswordGrantFlow("admin", "admin", "otrelay", "otrelay"),
    ServiceNowClientCredentialsFlow("otrelay", "otrelay"),
]
try:
    pysnc.ServiceNowClient(url, ("admin", "wrong"), verify=ca).GlideRecord("incident").get("x")
    raise SystemExit("a wrong password was taken")
except pysnc.exceptions.AuthenticationException:
    pass

for flow in flows:
    client = pysnc.ServiceNowClient(url, flow, verify=ca)
    record = client.GlideRecord("incident")
    record.initialize()
    record.short_description = "PLC stop"
    record.impact = "1"
    record.urgency = "1"
    record.bunk_field = "dropped"
    record.correlation_id = "otrelay-pysnc"
    group = client.GlideRecord("sys_user_group")
    assert group.get("name", "OT SOC")
    record.assignment_group = group.sys_id
    sys_id = str(record.insert())
    assert record.get_value("priority") == "1" and record.get_display_value("priority") == "1 - Critical"
    assert record.get_display_value("assignment_group") == "OT SOC"
    assert record.get_value("bunk_field") is None

    # A second record with the same id is refused.
    twin = client.GlideRecord("incident")
    twin.initialize()
    twin.set_new_guid_value(sys_id)
    twin.short_description = "twin"
    try:
        twin.insert()
        raise SystemExit("a twin was made")
    except pysnc.exceptions.RoleException as refused:
        assert "Error during insert of incident (INC" in str(refused), refused

    read = client.GlideRecord("incident")
    assert read.get(sys_id) and read.get_display_value("state") == "New"
    assert not client.GlideRecord("incident").get("0" * 32)
    read.work_notes = "looked at it"
    read.state = "2"
    assert read.update() and read.get_value("sys_mod_count") == "1"
    notes = client.GlideRecord("sys_journal_field")
    notes.add_query("element_id", sys_id)
    notes.query()
    assert [n.get_value("value") for n in notes] == ["looked at it"]

    read.state = "6"
    try:
        read.update()
        raise SystemExit("resolved without close code")
    except pysnc.exceptions.RoleException as refused:
        assert "Data Policy Exception" in str(refused), refused
    read.close_code, read.close_notes = "Solution provided", "done"
    assert read.update() and read.get_display_value("state") == "Resolved"

    for number in range(35):
        more = client.GlideRecord("incident")
        more.initialize()
        more.short_description = f"page {number:02}"
        more.insert()
    pages = client.GlideRecord("incident", batch_size=10)
    pages.add_query("short_description", "STARTSWITH", "page")
    pages.add_query("opened_by", "javascript:gs.getUserID()").add_or_condition("caller_id", "x")
    pages.order_by_desc("short_description")
    pages.query()
    names = [p.get_value("short_description") for p in pages]
    assert names == [f"page {n:02}" for n in reversed(range(35))], names

    # A filter on an unknown field is dropped: everything comes back.
    loose = client.GlideRecord("incident")
    loose.add_query("no_such_field", "x")
    loose.query()
    assert loose.get_row_count() == 36, loose.get_row_count()

    # Batches: update many, delete many.
    many = client.GlideRecord("incident")
    many.add_query("short_description", "CONTAINS", "page")
    many.query()
    for one in many:
        one.urgency = "1"
    assert many.update_multiple()
    check = client.GlideRecord("incident")
    check.add_query("urgency", "1")
    check.query()
    assert check.get_row_count() == 36
    assert check.delete_multiple()
    assert not client.GlideRecord("incident").get(sys_id)
print("pysnc: ok")
