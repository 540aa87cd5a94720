// JavaScript that calls C++ and is called back by it. Usage: node work.js CPU_SECONDS
'use strict';

function leaf(n) {
  let s = 0;
  for (let i = 0; i < n; i++) s = (s * 31 + i) % 1000003;
  return s;
}

function middle(n) {
  return leaf(n) + 1;
}

function outer(n) {
  return middle(n) * 2;
}

function compare(a, b) {
  return a - b;
}

function sorted() {
  return Array.from({ length: 3000 }, (_, i) => (i * 7919) % 3001).sort(compare)[1];
}

function revive(key, value) {
  let s = 0;
  for (let i = 0; i < 100; i++) s = (s * 31 + i) % 1000003;
  return s < 0 ? key : value;
}

function parsed() {
  return JSON.parse(JSON.stringify({ a: Array(3000).fill({ b: [1, 2, 3] }) }), revive);
}

function swap(match) {
  return match.toUpperCase();
}

function replaced() {
  return 'abc'.repeat(3000).replace(/b/g, swap);
}

function everything() {
  for (;;) {
    const { user, system } = process.cpuUsage();
    if (user + system > Number(process.argv[2]) * 1e6) return;
    outer(30000);
    sorted();
    parsed();
    replaced();
  }
}

everything();
