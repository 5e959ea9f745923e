const { Worker } = require("worker_threads");
const { execSync } = require("child_process");
require("fs").readFile("/etc/hostname", () => {
  const worker = new Worker('require("worker_threads").parentPort.postMessage(6)', { eval: true });
  worker.on("message", (n) => {
    console.log("works", n + Number(execSync("echo 1").toString()));
    process.exit(0);
  });
});
