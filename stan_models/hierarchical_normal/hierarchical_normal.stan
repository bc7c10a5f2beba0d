// Normal groups whose variance has an inverse-gamma prior: a funnel whose evidence is known (README).
data {
  int<lower=1> J;
  real<lower=0> a;
  real<lower=0> b;
  vector[J] y;                   // a measurement of each group, with standard deviation 1
}
parameters {
  real<lower=0> variance;        // of the groups' means
  vector[J] theta;
}
model {
  variance ~ inv_gamma(a, b);
  theta ~ normal(0, sqrt(variance));
  y ~ normal(theta, 1);
}
