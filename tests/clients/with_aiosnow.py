"""aiosnow against the simulator: create, query, update, attach a file and read it back, delete."""

import asyncio
import pathlib
import sys
import tempfile

import aiosnow
from aiosnow.exceptions import NoItems
from aiosnow.models.table.declared import IncidentModel as Incident

address = sys.argv[1].removeprefix("http://")


async def main() -> None:
    client = aiosnow.Client(address, basic_auth=("admin", "admin"), use_ssl=False)
    async with Incident(client, table_name="incident") as incident:
        made = await incident.create({"short_description": "PLC stop", "impact": 1, "urgency": 1})
        sys_id = made["sys_id"]
        found = await incident.get_one(Incident.sys_id == sys_id)
        assert found["short_description"] == "PLC stop" and found["priority"].key == 1, found.data
        changed = await incident.update(Incident.sys_id == sys_id, {"short_description": "looked at"})
        assert changed["short_description"] == "looked at"
        several = await incident.get(Incident.short_description.equals("looked at"), limit=5)
        assert len(several.data) == 1
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "record.txt")
            path.write_text("what the sensor wrote\n")
            await incident.upload_file(Incident.sys_id == sys_id, str(path))
            files = await incident.get_attachments()
            assert [file["file_name"] for file in files.data] == ["record.txt"], files.data
        await incident.delete(Incident.sys_id == sys_id)
        try:
            await incident.get_one(Incident.sys_id == sys_id)
            raise SystemExit("a deleted record was found")
        except NoItems:
            pass


asyncio.run(main())
print("aiosnow: ok")
