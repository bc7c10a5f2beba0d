// Neal's funnel in 1 + K dimensions: the scale of x depends exponentially on v.
data {
  int<lower=1> K;
}
parameters {
  real v;
  vector[K] x;
}
model {
  v ~ normal(0, 3);
  x ~ normal(0, exp(v / 2));
}
