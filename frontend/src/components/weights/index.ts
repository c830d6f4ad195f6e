/** Choosing weights, and what they are called. */
export { usualWeights, weightsFacts, weightsName, type Weights } from './names'
export { default as WeightsPicker } from './WeightsPicker.vue'
