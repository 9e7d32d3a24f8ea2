// Prints the closing line of a test run from the reporter's JSON: `N passed, N failed, N skipped`.
import { readFileSync } from 'node:fs';

let report = { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0 };
try {
  report = JSON.parse(readFileSync('test-results.json', 'utf8'));
} catch {
  console.error('The tests left no report: a step before them failed.');
}
const skipped = report.numPendingTests + (report.numTodoTests ?? 0);
console.log(`${report.numPassedTests} passed, ${report.numFailedTests} failed, ${skipped} skipped`);
