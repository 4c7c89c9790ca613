"use strict";
// servicenow-rest-api of npm against the simulator over TLS: create, query by display values, update by number, delete.
const ServiceNow = require(process.argv[3] + "/node_modules/servicenow-rest-api");

const instance = new ServiceNow(process.argv[2].replace("https://", ""), "admin", "admin");
// The library tells its addresses to the console.
console.log = () => {};
const ask = (name, ...given) =>
  new Promise((resolve, reject) =>
    instance[name](...given, (answer) => (answer instanceof Error ? reject(answer) : resolve(answer))));
const check = (is, what) => {
  if (!is) throw new Error(what);
};

(async () => {
  const task = { short_description: "PLC stop", urgency: "1 - High", impact: "1 - High", assignment_group: "OT SOC" };
  const made = await ask("createNewTask", task, "incident");
  check(made.number.startsWith("INC") && made.priority === "1 - Critical", JSON.stringify(made));
  const fields = ["number", "state", "assignment_group"];
  const rows = await ask("getTableData", fields, [`number=${made.number}`], "incident");
  check(rows.length === 1 && rows[0].state === "New" && rows[0].assignment_group.display_value === "OT SOC",
    JSON.stringify(rows));
  const changed = await ask("UpdateTask", "incident", made.number, { short_description: "looked at" });
  check((changed.short_description || changed.data.result.short_description) === "looked at", JSON.stringify(changed));
  await ask("DeleteTask", "incident", made.number);
  const gone = await ask("getTableData", fields, [`number=${made.number}`], "incident");
  check(gone.length === 0, JSON.stringify(gone));
  process.stdout.write("servicenow-rest-api: ok\n");
})().catch((error) => {
  process.stderr.write(`servicenow-rest-api: ${error.stack || error}\n`);
  process.exit(1);
});
