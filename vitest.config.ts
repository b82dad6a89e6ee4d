import { defineConfig } from "vitest/config";

/** Tests that wait for real processes, sockets and clocks: they want the machine without a simulator beside them. */
const timed = ["test/**/*.test.ts", "src/engines/**/*.test.ts", "src/cache/**/*.test.ts", "src/guards/**/*.test.ts"];
/** Of those folders, what only computes. */
const computed = ["test/**/*simulation*.test.ts", "test/schedules.test.ts", "test/tidy.test.ts", "test/mutants.test.ts"];

const shared = { testTimeout: 30_000, hookTimeout: 30_000, maxWorkers: 2 };

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...shared,
          name: "computed",
          include: ["src/**/*.test.ts", ...computed],
          exclude: timed.filter((pattern) => pattern.startsWith("src")),
          sequence: { groupOrder: 0 },
        },
      },
      { test: { ...shared, name: "timed", include: timed, exclude: computed, sequence: { groupOrder: 1 } } },
    ],
  },
});
