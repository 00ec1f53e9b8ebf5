#!/usr/bin/env node
console.log(`OK ${require('./index.js')()}`);
