// Runs once, when the data is new: the user of the registry may read and write its database, and nothing else.
db.getSiblingDB("admin").createUser({
  user: "sluice",
  pwd: require("fs").readFileSync("/run/secrets/registry-password", "utf8").trim(),
  roles: [{ role: "readWrite", db: "sluice" }],
});
