// Three functions with 60, 30 and 10 % of the time, below a recursion of eleven. Usage: shares.js SECONDS   of CPU time
function sixty_percent() {
  let x = 0;
  for (let i = 0; i < 600000; i++) x = (x * 31 + i) & 0xffff;
  return x;
}

function thirty_percent() {
  let x = 0;
  for (let i = 0; i < 300000; i++) x = (x * 31 + i) & 0xffff;
  return x;
}

function ten_percent() {
  let x = 0;
  for (let i = 0; i < 100000; i++) x = (x * 31 + i) & 0xffff;
  return x;
}

function descend(n) {
  if (n > 0) return descend(n - 1) + 1;
  return sixty_percent() + thirty_percent() + ten_percent();
}

function main(seconds) {
  const end = process.cpuUsage().user + 1e6 * seconds;
  while (process.cpuUsage().user < end) descend(10);
}

main(Number(process.argv[2]));
