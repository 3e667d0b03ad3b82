import { defineConfig } from 'vitest/config';

/** Unit and contract tests. End-to-end and interop have projects of their own: they start real processes. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/e2e/**', 'test/interop/**', 'test/spire/**', '**/node_modules/**'],
        },
      },
      { test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], testTimeout: 60_000, hookTimeout: 60_000, fileParallelism: false } },
      // by hand: needs SPIRE's binaries, which are not built here
      { test: { name: 'spire', include: ['test/spire/**/*.test.ts'], testTimeout: 90_000, hookTimeout: 60_000 } },
      {
        test: {
          name: 'interop',
          include: ['test/interop/**/*.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 600_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
