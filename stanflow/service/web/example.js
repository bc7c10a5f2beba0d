// Eight schools: effects of coaching on test scores (Rubin 1981, J. Educ. Stat. 6).

export const EXAMPLE = {
  name: "eight_schools",
  program_code: `data {
  int<lower=0> J;                // schools
  vector[J] y;                   // estimated effect of coaching in each
  vector<lower=0>[J] sigma;      // and its standard error
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[J] theta_raw;
}
transformed parameters {
  vector[J] theta = mu + tau * theta_raw;
}
model {
  mu ~ normal(0, 5);
  tau ~ cauchy(0, 5);
  theta_raw ~ std_normal();
  y ~ normal(theta, sigma);
}
`,
  data: {
    J: 8,
    y: [28, 8, -3, 7, -1, 1, 18, 12],
    sigma: [15, 10, 16, 11, 9, 11, 10, 18],
  },
};
