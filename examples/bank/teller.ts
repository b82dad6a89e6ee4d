/**
 * One process that moves money until somebody kills it.
 */
import { connect } from "../../src/index.ts";
import { accounts, openBank, transfer, type Where } from "./accounts.ts";

const where = JSON.parse(process.argv[3] ?? "{}") as Where;
const conclave = await connect(where.store);
const bank = await openBank(conclave, where);
const pick = (): number => Math.floor(Math.random() * accounts);
const work = async (): Promise<void> => {
  for (;;) {
    try {
      await transfer(bank, where, { from: pick(), to: pick(), amount: 1 + Math.floor(Math.random() * 50) });
      process.send?.("transferred");
    } catch {
      // Refused, fenced or out of time: the next customer is waiting.
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
await Promise.all([work(), work(), work()]);
