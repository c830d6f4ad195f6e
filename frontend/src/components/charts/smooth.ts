/** The exponential moving average of TensorBoard: debiased, so that the beginning is not pulled to zero. */
export function smoothed<Point extends readonly [number, number]>(
  points: readonly Point[],
  weight: number,
): [number, number][] {
  let sum = 0
  let mass = 0
  return points.map(([x, y]) => {
    if (!Number.isFinite(y)) return [x, y]
    sum = sum * weight + (1 - weight) * y
    mass = mass * weight + (1 - weight)
    return [x, weight ? sum / mass : y]
  })
}
