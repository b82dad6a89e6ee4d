import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { type PlantName, plant, plants } from "./plants.ts";

test("each planted bug fits exactly once into the product as it is built today", () => {
  for (const [name, { file }] of Object.entries(plants) as [PlantName, { readonly file: string }][]) {
    const folder = mkdtempSync(join(tmpdir(), "conclave-plant-"));
    try {
      cpSync(join("dist", file), join(folder, file), { recursive: true });
      expect(() => plant(name, folder), dirname(file)).not.toThrow();
      expect(() => plant(name, folder)).toThrow(/it must fit once/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
});
