/**
 * The door `conclave/testing`: the contract for anyone's engine, an in-memory twin of ours, and the linearizability checker.
 */
export { type ContractSuiteOptions, type ContractWorld, contractSuite, type IsolatedClient } from "./contract-suite.ts";
export {
  type CheckOptions,
  checkDefaults,
  checkLinearizable,
  type Verdict,
  type Witness,
} from "./linearizability/check-linearizable.ts";
export { type ExplainOptions, explain } from "./linearizability/explain.ts";
export { type RegisterOperation, readJepsenHistory, writeJepsenHistory } from "./linearizability/jepsen-history.ts";
export { type KeyValueInput, type KeyValueOutput, type KeyValueState, keyValueModel } from "./linearizability/key-value-model.ts";
export type { Hint, Model } from "./linearizability/model.ts";
export { nil } from "./linearizability/nil.ts";
export type { Operation } from "./linearizability/operation.ts";
export {
  type RegisterInput,
  type RegisterOutput,
  type RegisterState,
  type RegisterValue,
  registerModel,
} from "./linearizability/register-model.ts";
export { LocalEngine, type LocalEngineOptions } from "./local-engine.ts";
export type { BatchFault, CallFault, LocalFaults } from "./local-faults.ts";
export { VirtualPlatform, type VirtualPlatformOptions } from "./virtual-platform.ts";
