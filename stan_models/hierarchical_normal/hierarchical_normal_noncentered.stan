// hierarchical_normal.stan with means as multiples of their standard deviation: the same evidence.
data {
  int<lower=1> J;
  real<lower=0> a;
  real<lower=0> b;
  vector[J] y;                   // a measurement of each group, with standard deviation 1
}
parameters {
  real<lower=0> variance;        // of the groups' means
  vector[J] z;                   // means in units of their standard deviation
}
transformed parameters {
  vector[J] theta = sqrt(variance) * z;
}
model {
  variance ~ inv_gamma(a, b);
  z ~ std_normal();
  y ~ normal(theta, 1);
}
