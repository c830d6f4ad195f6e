/** A drawn landscape, so that the gallery needs no photograph: in colours, in grey, and a map of where a model might guess. */
export function picture(kind: 'colour' | 'grey' | 'map', width = 1200, height = 800): string {
  const canvas = document.createElement('canvas')
  canvas.width = width
  canvas.height = height
  const c = canvas.getContext('2d') as CanvasRenderingContext2D
  if (kind === 'grey') c.filter = 'grayscale(1)'
  const sky = c.createLinearGradient(0, 0, 0, height * 0.6)
  const stops = kind === 'map' ? ['#111', '#333'] : ['#5b8fc7', '#f3d9b1']
  stops.forEach((colour, at) => sky.addColorStop(at, colour))
  c.fillStyle = sky
  c.fillRect(0, 0, width, height)
  const hills = kind === 'map' ? ['#222', '#555', '#000'] : ['#6d8aa0', '#5d8a58', '#34562f']
  hills.forEach((colour, layer) => {
    c.fillStyle = colour
    c.beginPath()
    c.moveTo(0, height)
    for (let x = 0; x <= width; x += 4) {
      const wave = Math.sin(x / (90 + layer * 60) + layer * 2) * 40 + Math.sin(x / 37 + layer) * 8
      c.lineTo(x, height * (0.5 + layer * 0.13) + wave)
    }
    c.lineTo(width, height)
    c.fill()
  })
  c.fillStyle = kind === 'map' ? '#fff' : '#c8452f'
  c.fillRect(width * 0.62, height * 0.58, 130, 90)
  c.fillStyle = kind === 'map' ? '#bbb' : '#7a3b2a'
  c.beginPath()
  c.moveTo(width * 0.62 - 15, height * 0.58)
  c.lineTo(width * 0.62 + 65, height * 0.58 - 60)
  c.lineTo(width * 0.62 + 145, height * 0.58)
  c.fill()
  return canvas.toDataURL('image/png')
}
