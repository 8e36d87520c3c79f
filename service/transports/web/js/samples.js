/** The sample pictures; licences and sources are in samples/LICENCES.md. */

export const SAMPLES = [
  { file: "parrots.jpg", title: "Two macaws", credit: "Kodak" },
  { file: "coffee.jpg", title: "Coffee cup", credit: "Rachel Michetti, CC0" },
  { file: "cat.jpg", title: "Cat", credit: "Stefan van der Walt, CC0" },
  { file: "astronaut.jpg", title: "Astronaut", credit: "NASA" },
  { file: "raccoon.jpg", title: "Raccoon", credit: "public domain" },
  { file: "pagoda.jpg", title: "Pagoda", credit: "danielbuechele, CC BY 2.0" },
  { file: "rocket.jpg", title: "Rocket", credit: "SpaceX" },
  { file: "coins.jpg", title: "Coins", credit: "Brooklyn Museum" },
];
